package h2

import "testing"

func FuzzServer(f *testing.F) { fuzz(f, server, cat([]byte(Preface), fr(frameSettings, 0, 0))) }

func FuzzClient(f *testing.F) {
	fuzz(f, func() *Conn {
		c := client()
		c.Open("10.0.0.9:80", nil)
		c.Open("10.0.0.9:81", nil)
		return c
	}, fr(frameSettings, 0, 0))
}

// fuzz feeds a connection in two ways that must agree, and looks that its books stay in order.
func fuzz(f *testing.F, fresh func() *Conn, hello []byte) {
	f.Add(cat(fr(frameHeaders, flagEndHeaders, 1, request()...), fr(frameData, flagPadded|flagEndStream, 1, 1, 'x', 0)), byte(3))
	f.Add(cat(fr(frameHeaders, flagEndHeaders, 1, 0x88), fr(frameData, 0, 1, 'x'), fr(frameReset, 0, 1, u32(8)...)), byte(1))
	f.Add(cat(fr(frameSettings, 0, 0, 0, 4, 0, 0, 0, 1), fr(frameWindowUpdate, 0, 0, u32(9)...), fr(framePing, 0, 0, make([]byte, 8)...)), byte(9))
	f.Add(cat(fr(frameGoAway, 0, 0, cat(u32(1), u32(0), []byte("why"))...), fr(frameHeaders, 0, 1, 0x82), fr(frameContinuation, flagEndHeaders, 1)), byte(2))
	f.Fuzz(func(t *testing.T, in []byte, step byte) {
		a, b := fresh(), fresh()
		in = cat(hello, in)
		evA, errA := a.Feed(in, nil)
		var dataA, dataB int
		for _, e := range evA {
			dataA += len(e.Data)
		}
		var errB error
		for i, n := 0, max(1, int(step)); i < len(in) && errB == nil; i += n {
			var ev []Event
			ev, errB = b.Feed(in[i:min(i+n, len(in))], nil)
			for _, e := range ev {
				dataB += len(e.Data)
				if e.Kind == Request && e.Head.Method == "" && !e.Head.TooLarge {
					t.Error("request without a method")
				}
			}
		}
		if (errA == nil) != (errB == nil) || dataA != dataB || a.Streams() != b.Streams() || a.recvWindow != b.recvWindow || a.sendWindow != b.sendWindow {
			t.Errorf("whole: %v %d bytes %d streams; in pieces of %d: %v %d bytes %d streams", errA, dataA, a.Streams(), step, errB, dataB, b.Streams())
		}
		if a.recvWindow < 0 || a.Streams() > 200 || a.grown < 0 {
			t.Errorf("window %d, %d streams, grown %d", a.recvWindow, a.Streams(), a.grown)
		}
		if a.controlOut > maxControlOut+1024 {
			t.Errorf("%d bytes of answers", a.controlOut)
		}
	})
}
