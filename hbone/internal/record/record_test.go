package record

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pair gives both ends of a connection of which only the secrets exist.
func pair(t testing.TB, id uint16) (client, server struct {
	*Reader
	*Writer
},
) {
	t.Helper()
	kind, ok := suiteOf(id)
	if !ok {
		t.Fatalf("suite %#x", id)
	}
	size := kind.hash().Size()
	state := tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, CipherSuite: id}
	for _, end := range []struct {
		to *struct {
			*Reader
			*Writer
		}
		client bool
	}{{&client, true}, {&server, false}} {
		s := Secrets{client: bytes.Repeat([]byte{1}, size), server: bytes.Repeat([]byte{2}, size)}
		r, w, err := s.Take(state, end.client)
		if err != nil {
			t.Fatal(err)
		}
		end.to.Reader, end.to.Writer = r, w
	}
	return client, server
}

// A trace of RFC 8448, section 3: the application data and the alerts of both ends.
func TestVectorsOfRFC8448(t *testing.T) {
	clientSecret := unhex(t, "9e40646ce79a7f9dc05af8889bce6552 875afa0b06df0087f792ebb7c17504a5")
	serverSecret := unhex(t, "a11af9f05531f856ad47116b45a95032 8204b4f44bfb6b3a4b4f1f3fcb631643")
	kind, _ := suiteOf(tls.TLS_AES_128_GCM_SHA256)
	for _, k := range []struct {
		secret  []byte
		key, iv string
	}{
		{clientSecret, "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9"},
		{serverSecret, "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984"},
	} {
		key, err := expandLabel(kind, k.secret, "key", 16)
		if err != nil || hex.EncodeToString(key) != k.key {
			t.Errorf("key %x, %v", key, err)
		}
		h, err := newHalf(kind, k.secret)
		if err != nil || hex.EncodeToString(h.iv[:]) != k.iv {
			t.Errorf("iv %x, %v", h.iv, err)
		}
	}
	content := make([]byte, 50)
	for i := range content {
		content[i] = byte(i)
	}
	for _, end := range []struct {
		name        string
		secret      []byte
		skip        uint64 // records before: the server's session ticket
		data, alert string
	}{
		{
			"client", clientSecret, 0, `17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab
			3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4`,
			"17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0 e3",
		},
		{
			"server", serverSecret, 1, `17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc 32 25 d0 5f 82 aa 1b
			36 e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5 f0 a2 1c 00 47 c2 ab f3 32 54 0d d0 32 e1 67 c2 95 5d`,
			"17 03 03 00 13 b5 8f d6 71 66 eb f5 99 d2 47 20 cf be 7e fa 7a 88 64 a9",
		},
	} {
		t.Run(end.name, func(t *testing.T) {
			h, err := newHalf(kind, end.secret)
			if err != nil {
				t.Fatal(err)
			}
			h.seq = end.skip
			w, r := Writer{half: h}, Reader{half: h}
			rec := make([]byte, HeaderLen+50+TrailerLen)
			copy(rec[HeaderLen:], content)
			if err := w.Seal(rec); err != nil || !bytes.Equal(rec, unhex(t, end.data)) {
				t.Fatalf("sealed % x, %v", rec, err)
			}
			if got, err := r.Open(rec); err != nil || !bytes.Equal(got, content) {
				t.Errorf("opened % x, %v", got, err)
			}
			bye, err := w.Goodbye(nil)
			if err != nil || !bytes.Equal(bye, unhex(t, end.alert)) {
				t.Fatalf("goodbye % x, %v", bye, err)
			}
			if _, err := r.Open(bye); err != io.EOF {
				t.Errorf("behind the goodbye: %v", err)
			}
			if _, err := r.Open(bye); err != io.EOF {
				t.Errorf("once more: %v", err)
			}
		})
	}
}

var suites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384}

func TestKeysAreUpdated(t *testing.T) {
	for _, id := range suites {
		client, server := pair(t, id)
		client.Every = 3
		for i := range 20 {
			var out []byte
			if client.Due() {
				var err error
				if out, err = client.Update(out); err != nil {
					t.Fatal(err)
				}
				if _, err := server.Open(out); err != nil {
					t.Fatalf("update before record %d: %v", i, err)
				}
			}
			rec := make([]byte, HeaderLen+i+1+TrailerLen)
			rec[HeaderLen] = byte(i)
			before := bytes.Clone(rec)
			if err := client.Seal(rec); err != nil {
				t.Fatal(err)
			}
			got, err := server.Open(rec)
			if err != nil || !bytes.Equal(got, before[HeaderLen:HeaderLen+i+1]) {
				t.Fatalf("record %d: % x, %v", i, got, err)
			}
		}
		if client.Writer.seq >= 4 || server.Asked() {
			t.Errorf("%d records under one key", client.Writer.seq)
		}
		client.Writer.seq = mostRecords
		if err := client.Seal(make([]byte, 64)); err == nil {
			t.Error("a key was used too often")
		}
	}
}

func TestWhatAPeerMayNotDo(t *testing.T) {
	const ticket, finished, update = 4, 20, 24
	type sent struct {
		kind    byte
		content []byte
	}
	long := make([]byte, 17)
	for _, c := range []struct {
		name  string
		sent  []sent
		to    string // client, server or both
		alert byte
	}{
		{"an empty handshake record", []sent{{22, nil}}, "both", alertUnexpectedMessage},
		{"an unknown content type", []sent{{24, []byte("x")}}, "both", alertUnexpectedMessage},
		{"a change of cipher", []sent{{20, []byte{1}}}, "both", alertUnexpectedMessage},
		{"nothing but padding", []sent{{0, long}}, "both", alertUnexpectedMessage},
		{"a finished handshake that finishes again", []sent{{22, []byte{finished, 0, 0, 0}}}, "both", alertUnexpectedMessage},
		{"a ticket for a server", []sent{{22, []byte{ticket, 0, 0, 1, 9}}}, "server", alertUnexpectedMessage},
		{"a certificate request", []sent{{22, []byte{13, 0, 0, 0}}}, "both", alertUnexpectedMessage},
		{"a long key update", []sent{{22, []byte{update, 0, 0, 2, 0, 0}}}, "both", alertDecodeError},
		{"a key update with a strange request", []sent{{22, []byte{update, 0, 0, 1, 2}}}, "both", alertIllegalParameter},
		{"a key update within a record", []sent{{22, []byte{update, 0, 0, 1, 0, update}}}, "both", alertUnexpectedMessage},
		{"a huge message", []sent{{22, []byte{update, 1, 0, 0}}}, "both", alertIllegalParameter},
		{"data within a message", []sent{{22, []byte{update, 0}}, {23, []byte("x")}}, "both", alertUnexpectedMessage},
		{"an alert within a message", []sent{{22, []byte{update, 0}}, {21, []byte{1, 0}}}, "both", alertDecodeError},
		{"a short alert", []sent{{21, []byte{1}}}, "both", alertDecodeError},
		{"two alerts in one", []sent{{21, []byte{1, 0, 1, 0}}}, "both", alertDecodeError},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := pair(t, tls.TLS_AES_128_GCM_SHA256)
			ways := map[string]struct {
				w *Writer
				r *Reader
			}{"client": {server.Writer, client.Reader}, "server": {client.Writer, server.Reader}}
			for to, way := range ways {
				if c.to != "both" && c.to != to {
					continue
				}
				var err error
				for _, s := range c.sent {
					rec, serr := way.w.append(nil, s.kind, s.content...)
					if serr != nil {
						t.Fatal(serr)
					}
					var data []byte
					if data, err = way.r.Open(rec); len(data) > 0 {
						t.Fatalf("to the %s: data %q", to, data)
					}
				}
				e, ok := errors.AsType[*Error](err)
				if !ok || e.Alert != c.alert {
					t.Errorf("to the %s: %v, want alert %d", to, err, c.alert)
				}
				rec, _ := way.w.append(nil, typeData, 'x')
				if data, err := way.r.Open(rec); err == nil {
					t.Errorf("opens on, to %q", data)
				}
			}
		})
	}
}

func TestWhatAPeerMayDo(t *testing.T) {
	client, server := pair(t, tls.TLS_AES_256_GCM_SHA384)
	open := func(kind byte, content ...byte) ([]byte, error) {
		t.Helper()
		rec, err := server.Writer.append(nil, kind, content...)
		if err != nil {
			t.Fatal(err)
		}
		return client.Open(rec)
	}
	data, err := open(typeHandshake, 4, 0, 0, 3, 'a') // a ticket in pieces, and a second one
	if data != nil || err != nil {
		t.Fatal(data, err)
	}
	if _, err = open(typeHandshake, 'b', 'c', 4, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if _, err = open(typeHandshake, 24, 0, 0, 1, 1); err != nil {
		t.Fatal(err)
	}
	if !client.Asked() || client.Asked() {
		t.Error("the peer asks once for new keys")
	}
	if err := server.Writer.update(); err != nil {
		t.Fatal(err)
	}
	if data, err := open(typeData, []byte("padded\x17\x00\x00\x00")[:6]...); string(data) != "padded" || err != nil {
		t.Fatalf("%q, %v", data, err)
	}
	rec := append(make([]byte, HeaderLen), "padded\x17\x00\x00\x00"...) // the type, then padding
	rec = append(rec, make([]byte, TrailerLen)...)
	if err := server.seal(rec, 0); err != nil {
		t.Fatal(err)
	}
	if data, err := client.Open(rec); string(data) != "padded" || err != nil {
		t.Fatalf("%q, %v", data, err)
	}
	if data, err = open(typeAlert, 1, alertUserCanceled); data != nil || err != nil {
		t.Fatal(data, err)
	}
	if _, err = open(typeAlert, 2, 42); err == nil || err.Error() != "remote error: tls: bad certificate" {
		t.Fatal(err)
	}
	if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "remote error" {
		t.Errorf("%#v", err)
	}
}

func TestUselessRecordsAreCounted(t *testing.T) {
	for name, content := range map[string][]byte{"empty data": nil, "key updates": {24, 0, 0, 1, 1}} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t, tls.TLS_AES_128_GCM_SHA256)
			kind := byte(typeData)
			if content != nil {
				kind = typeHandshake
			}
			n := 0
			for ; n < 100; n++ {
				rec, err := client.append(nil, kind, content...)
				if err != nil {
					t.Fatal(err)
				}
				if _, err = server.Open(rec); err != nil {
					break
				}
				if content != nil {
					if err := client.Writer.update(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if n != maxUseless {
				t.Errorf("%d were taken", n)
			}
		})
	}
}

// Whatever bit is changed, nothing is opened.
func TestForgeries(t *testing.T) {
	for _, id := range suites {
		client, server := pair(t, id)
		for _, size := range []int{1, 15, 16, 17, 100, 1000} {
			rec := make([]byte, HeaderLen+size+TrailerLen)
			if err := client.Seal(rec); err != nil {
				t.Fatal(err)
			}
			before := *server.Reader
			for bit := range 8 * len(rec) {
				if bit/8 == 3 || bit/8 == 4 {
					continue // the length: tested below
				}
				if bit/8 == 1 || bit/8 == 2 {
					continue // the version, which the standard wants ignored, but the tag covers
				}
				*server.Reader = before
				forged := bytes.Clone(rec)
				forged[bit/8] ^= 1 << (bit % 8)
				if data, err := server.Open(forged); err == nil {
					t.Fatalf("bit %d of %d bytes: opened %q", bit, len(rec), data)
				}
			}
			*server.Reader = before
			if _, err := server.Open(rec); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			if _, err := server.Open(rec); err == nil {
				t.Fatal("a record was taken twice")
			}
			*server.Reader = before
			server.Reader.seq++
		}
	}
}

func TestLen(t *testing.T) {
	for _, c := range []struct {
		header string
		want   int
		alert  byte
	}{
		{"1703030011", 22, 0},
		{"1703034100", 16645, 0},
		{"1703034101", 0, alertRecordOverflow},
		{"170303ffff", 0, alertRecordOverflow},
		{"1703030010", 0, alertBadRecordMAC},
		{"1703030000", 0, alertBadRecordMAC},
		{"1603030040", 0, alertUnexpectedMessage},
		{"1503030002", 0, alertUnexpectedMessage},
		{"1403030001", 0, alertUnexpectedMessage},
		{"4745542020", 0, alertUnexpectedMessage},
	} {
		n, err := Len(unhex(t, c.header))
		e, _ := errors.AsType[*Error](err)
		if n != c.want || (err != nil) != (c.alert != 0) || e != nil && e.Alert != c.alert {
			t.Errorf("%s: %d, %v", c.header, n, err)
		}
	}
}

func TestSecretsAreWiped(t *testing.T) {
	var s Secrets
	line := []byte("CLIENT_TRAFFIC_SECRET_0 00 " + strings.Repeat("ab", 32) + "\n")
	if _, err := s.Write(line); err != nil || !bytes.Equal(line, make([]byte, len(line))) {
		t.Errorf("line %q, %v", line, err)
	}
	held := s.client
	if _, _, err := s.Take(tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, CipherSuite: tls.TLS_AES_128_GCM_SHA256}, true); err == nil {
		t.Error("took over with half of the secrets")
	}
	if !bytes.Equal(held, make([]byte, 32)) || s.client != nil {
		t.Errorf("left: %x", held)
	}
	client, _ := pair(t, tls.TLS_AES_128_GCM_SHA256)
	held = client.Writer.secret
	if err := client.Writer.update(); err != nil || !bytes.Equal(held, make([]byte, 32)) {
		t.Errorf("after an update: %x, %v", held, err)
	}
	held = client.Writer.secret
	client.Writer.Forget()
	client.Reader.Forget()
	if !bytes.Equal(held, make([]byte, 32)) {
		t.Errorf("after Forget: %x", held)
	}
	if err := client.Seal(make([]byte, 64)); err == nil {
		t.Error("sealed without a key")
	}
	if _, err := client.Open(make([]byte, 64)); err == nil {
		t.Error("opened without a key")
	}
}

func FuzzReader(f *testing.F) {
	for kind := range 30 {
		f.Add(byte(kind), []byte{24, 0, 0, 1, 1}, []byte{1, 0}, false)
		f.Add(byte(kind), []byte{4, 0, 0, 1}, []byte{9, 24, 0, 0, 1, 0}, true)
	}
	f.Fuzz(func(t *testing.T, kind byte, first, second []byte, raw bool) {
		client, server := pair(t, tls.TLS_AES_128_GCM_SHA256)
		for _, r := range []struct {
			r *Reader
			w *Writer
		}{{client.Reader, server.Writer}, {server.Reader, client.Writer}} {
			for _, content := range [][]byte{first, second} {
				rec := bytes.Clone(content)
				if raw { // a stranger's bytes
					if len(rec) < HeaderLen {
						continue
					}
					if n, err := Len(rec); err != nil || n != len(rec) {
						continue
					}
				} else {
					if len(content) > MaxContent+100 {
						return
					}
					var err error
					if rec, err = r.w.append(nil, kind, content...); err != nil {
						t.Fatal(err)
					}
				}
				data, err := r.r.Open(rec)
				if len(data) > 0 && (raw || err != nil || kind != 0 && kind != typeData) {
					t.Fatalf("data % x, %v, of type %d", data, err, kind)
				}
			}
		}
	})
}
