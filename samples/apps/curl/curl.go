package curl

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// Exit codes, those of curl.
const (
	exitUsage   = 2
	exitResolve = 6
	exitConnect = 7
	exitWrite   = 23
	exitHTTP    = 22
	exitTimeout = 28
	exitTLS     = 35
	exitEmpty   = 52
	exitRecv    = 56
)

// Run does what the arguments say and returns the exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "curl: %v\n", err)
		return exitUsage
	}
	code := 0
	for _, url := range o.urls {
		for try := 0; ; try++ {
			code, err = fetch(ctx, o, url, stdout, stderr)
			if err == nil || try >= o.retries || ctx.Err() != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if err != nil && (!o.silent || o.showError) {
			fmt.Fprintf(stderr, "curl: (%d) %v\n", code, err)
		}
	}
	return code
}

func fetch(ctx context.Context, o *options, url string, stdout, stderr io.Writer) (int, error) {
	if o.maxTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.maxTime)
		defer cancel()
	}
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	req, err := request(ctx, o, url)
	if err != nil {
		return exitUsage, err
	}
	start := time.Now()
	client := client(o)
	defer client.CloseIdleConnections()
	if o.verbose {
		fmt.Fprintf(stderr, "> %s %s\n> Host: %s\n", req.Method, req.URL.RequestURI(), req.Host)
		_ = req.Header.Write(prefixed{"> ", stderr})
	}
	resp, err := client.Do(req)
	if err != nil {
		writeOut(o, stdout, nil, 0, time.Since(start))
		return exitCode(err), err
	}
	defer resp.Body.Close()
	if o.verbose {
		fmt.Fprintf(stderr, "< %s %s\n", resp.Proto, resp.Status)
		_ = resp.Header.Write(prefixed{"< ", stderr})
	}
	out := stdout
	if o.output != "" {
		f, err := os.Create(o.output)
		if err != nil {
			return exitWrite, err
		}
		defer f.Close()
		out = f
	}
	if o.include || o.head {
		fmt.Fprintf(out, "%s %s\r\n", resp.Proto, resp.Status)
		_ = resp.Header.Write(out)
		fmt.Fprint(out, "\r\n")
	}
	var size int64
	failed := o.fail && resp.StatusCode >= 400
	if !failed {
		size, err = io.Copy(out, resp.Body)
	}
	writeOut(o, stdout, resp, size, time.Since(start))
	switch {
	case failed:
		return exitHTTP, fmt.Errorf("The requested URL returned error: %d", resp.StatusCode)
	case err != nil:
		return exitCode(err), err
	}
	return 0, nil
}

func request(ctx context.Context, o *options, url string) (*http.Request, error) {
	method := http.MethodGet
	switch {
	case o.method != "":
		method = o.method
	case o.head:
		method = http.MethodHead
	case o.data != "":
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(o.data))
	if err != nil {
		return nil, err
	}
	req.Header = o.header.Clone()
	if o.host != "" {
		req.Host = o.host
	}
	if o.data != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if name, pass, ok := strings.Cut(o.user, ":"); ok {
		req.SetBasicAuth(name, pass)
	}
	return req, nil
}

func client(o *options) *http.Client {
	t := &http.Transport{
		DialContext:       (&net.Dialer{Timeout: o.connectTimeout}).DialContext,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: o.insecure}, // -k is the user's own word
		ForceAttemptHTTP2: true,
	}
	if o.h2prior {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	c := &http.Client{Transport: t}
	if !o.follow {
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return c
}

// writeOut prints the -w format with the variables that scripts use most.
func writeOut(o *options, to io.Writer, resp *http.Response, size int64, took time.Duration) {
	if o.writeOut == "" {
		return
	}
	code, version, kind := 0, "0", ""
	if resp != nil {
		code, version, kind = resp.StatusCode, fmt.Sprintf("%d.%d", resp.ProtoMajor, resp.ProtoMinor), resp.Header.Get("Content-Type")
	}
	fmt.Fprint(to, strings.NewReplacer(
		`\n`, "\n", `\t`, "\t", "%%", "%",
		"%{http_code}", fmt.Sprintf("%03d", code), "%{response_code}", fmt.Sprintf("%03d", code),
		"%{http_version}", version, "%{content_type}", kind,
		"%{size_download}", fmt.Sprint(size), "%{time_total}", fmt.Sprintf("%.6f", took.Seconds()),
	).Replace(o.writeOut))
}

// exitCode names a failure as curl does.
func exitCode(err error) int {
	var dns *net.DNSError
	var op *net.OpError
	var rec tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &dns):
		return exitResolve
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return exitTimeout
	case errors.As(err, &rec), errors.As(err, &cert):
		return exitTLS
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return exitRecv
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return exitEmpty
	case errors.As(err, &op) && op.Op == "dial":
		return exitConnect
	}
	return exitRecv
}

// prefixed writes a prefix before each header line.
type prefixed struct {
	prefix string
	to     io.Writer
}

func (p prefixed) Write(b []byte) (int, error) {
	if _, err := io.WriteString(p.to, p.prefix+strings.ReplaceAll(strings.TrimSuffix(string(b), "\r\n"), "\r\n", "\n"+p.prefix)+"\n"); err != nil {
		return 0, err
	}
	return len(b), nil
}
