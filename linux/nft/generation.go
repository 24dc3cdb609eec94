package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nlsock"
)

// Generation counts the transactions that changed a namespace's packet filter: while it is the same, so is every table. 0 is
// none.
type Generation uint32

// next is the generation after one more transaction.
func (g Generation) next() Generation {
	if g++; g == 0 {
		g = 1
	}
	return g
}

// Current asks for the generation in force.
func Current(ns *netns.Namespace) (g Generation, err error) {
	err = with(ns, func(s *nlsock.Socket) (err error) {
		g, err = generation(s)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("generation of the packet filter: %w", err)
	}
	return g, nil
}

func generation(s *nlsock.Socket) (Generation, error) {
	var m nlsock.Messages
	begin(&m, unix.NFT_MSG_GETGEN, unix.NLM_F_ACK, unix.NFPROTO_UNSPEC)
	answers, err := s.Dump(&m)
	if err != nil {
		return 0, err
	}
	for _, a := range answers {
		attrs, err := attributesOf(a)
		if err != nil {
			return 0, err
		}
		if g := big32(attrs, unix.NFTA_GEN_ID); g != 0 {
			return Generation(g), nil
		}
	}
	return 0, errors.New("the kernel names none")
}
