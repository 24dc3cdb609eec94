package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

type attribute struct {
	kind  uint16
	value []byte
}

// attributes splits a run of netlink attributes, sorted by type.
func attributes(b []byte) ([]attribute, error) {
	var all []attribute
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			return nil, errors.New("netlink attribute of impossible length")
		}
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		all = append(all, attribute{kind, b[unix.SizeofNlAttr:n]})
		b = b[min(len(b), (n+3)&^3):]
	}
	slices.SortStableFunc(all, func(x, y attribute) int { return int(x.kind) - int(y.kind) })
	return all, nil
}

// canonical writes an expression so that what we send and what the kernel gives back read the same.
func canonical(b []byte) (string, error) {
	attrs, err := attributes(b)
	if err != nil {
		return "", err
	}
	var name string
	var words []string
	for _, a := range attrs {
		switch a.kind {
		case unix.NFTA_EXPR_NAME:
			name = string(bytes.TrimRight(a.value, "\x00"))
		case unix.NFTA_EXPR_DATA:
			data, err := attributes(a.value)
			if err != nil {
				return "", fmt.Errorf("expression %s: %w", name, err)
			}
			for _, d := range data {
				if w := argument(name, d); w != "" {
					words = append(words, w)
				}
			}
		}
	}
	return "[" + strings.Join(append([]string{name}, words...), " ") + "]", nil
}

// argument leaves out what says nothing: zeros, the number of a set within one transaction, flags implied by other arguments.
func argument(name string, a attribute) string {
	const impliedNATFlags = unix.NF_NAT_RANGE_MAP_IPS | unix.NF_NAT_RANGE_PROTO_SPECIFIED
	switch {
	case name == "lookup" && a.kind == unix.NFTA_LOOKUP_SET_ID:
		return ""
	case name == "redir" && a.kind == unix.NFTA_REDIR_FLAGS, name == "nat" && a.kind == unix.NFTA_NAT_FLAGS:
		if len(a.value) == 4 && binary.BigEndian.Uint32(a.value)&^impliedNATFlags == 0 {
			return ""
		}
	case name == "cmp" && a.kind == unix.NFTA_CMP_DATA,
		name == "immediate" && a.kind == unix.NFTA_IMMEDIATE_DATA,
		name == "bitwise" && (a.kind == unix.NFTA_BITWISE_MASK || a.kind == unix.NFTA_BITWISE_XOR):
		return fmt.Sprintf("%d=%s", a.kind, data(a.value))
	}
	if len(bytes.Trim(a.value, "\x00")) == 0 {
		return ""
	}
	return fmt.Sprintf("%d=%x", a.kind, a.value)
}

// data is a value or a verdict.
func data(b []byte) string {
	attrs, err := attributes(b)
	if err != nil || len(attrs) != 1 {
		return fmt.Sprintf("?%x", b)
	}
	if attrs[0].kind == unix.NFTA_DATA_VALUE {
		return fmt.Sprintf("%x", attrs[0].value)
	}
	verdict, err := attributes(attrs[0].value)
	if err != nil {
		return fmt.Sprintf("?%x", b)
	}
	var words []string
	for _, v := range verdict {
		words = append(words, fmt.Sprintf("%d:%x", v.kind, v.value))
	}
	return "verdict(" + strings.Join(words, ",") + ")"
}
