package hbone_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/hbone"
)

// What an application says just when the hop's answer comes is neither lost nor out of order.
func TestFirstWordsThatMeetTheAnswerArrive(t *testing.T) {
	c := newChain(t)
	c.wg.Go(func() { // every end point says back what it was told
		for {
			b, err := c.backend.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() {
				defer b.Close()
				_, _ = io.Copy(b, b)
			})
		}
	})
	const words = "the first words"
	say := func() string {
		l := listen(t)
		defer l.Close()
		app, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err.Error()
		}
		defer app.Close()
		inside, err := l.Accept()
		if err != nil {
			return err.Error()
		}
		s, err := c.dialer.Open(context.Background(), c.hop, c.backend.Addr().String(), nil)
		if err != nil {
			return err.Error()
		}
		done := make(chan hbone.Result, 1)
		go func() { done <- hbone.Join(context.Background(), inside, s) }()
		for end := time.Now().Add(time.Duration(rand.IntN(400)) * time.Microsecond); time.Now().Before(end); { // about as long as an answer takes
		}
		_, err = io.WriteString(app, words)
		if err == nil {
			err = app.(*net.TCPConn).CloseWrite()
		}
		if err != nil {
			return err.Error()
		}
		got, err := io.ReadAll(app)
		if err != nil {
			return err.Error()
		}
		if r := <-done; r.Err != nil {
			return r.Err.Error()
		}
		return string(got)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 { // the chain keeps 10,000 results
				if got := say(); got != words {
					t.Errorf("came back: %q", got)
					return
				}
			}
		})
	}
	wg.Wait()
}
