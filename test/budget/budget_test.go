// Package budget measures what the programs of every node take.
package budget

import (
	_ "embed"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
)

//go:embed budgets.txt
var budgets string

// budget is the most that a program may take, in bytes.
func budget(t *testing.T, program, measure string) int64 {
	t.Helper()
	for line := range strings.Lines(budgets) {
		if w := strings.Fields(line); len(w) > 3 && w[0] == program && w[1] == measure && w[3] == "MiB" {
			n, err := strconv.ParseInt(w[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 20
		}
	}
	t.Fatalf("no budget for %s of %s", measure, program)
	return 0
}

// build makes a program as it is shipped.
func build(t *testing.T, name string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	c := exec.Command("go", "build", "-tags", "grpcnotrace", "-trimpath", "-ldflags", "-s -w", "-o", out, "../../cmd/"+name)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, b)
	}
	return out
}

func TestBinarySize(t *testing.T) {
	for _, name := range []string{"ztunnel", "ambit-node", "ambit-cni"} {
		i, err := os.Stat(build(t, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f MiB", name, float64(i.Size())/(1<<20))
		if most := budget(t, name, "binary"); i.Size() > most {
			t.Errorf("%s is %d bytes, budget %d", name, i.Size(), most)
		}
	}
}

// settle is when a program is measured: it gives back what its start took after 5 s.
const settle = 7 * time.Second

// TestIdleResident starts each program alone, without a control plane: it retries, and holds what it holds while idle.
func TestIdleResident(t *testing.T) {
	for name, args := range map[string]func(dir string) []string{
		"ztunnel": func(dir string) []string {
			return []string{
				"-node", "n", "-xds", "127.0.0.1:1", "-ca", "127.0.0.1:1", "-root", dir + "/root.pem", "-token", dir + "/token", "-zds", dir + "/zds",
				"-admin", "127.0.0.1:0", "-metrics", "127.0.0.1:0", "-readiness", "127.0.0.1:0", "-resolv-conf", dir + "/resolv.conf",
			}
		},
		"ambit-node": func(dir string) []string {
			return []string{
				"-node-name", "n", "-api-server", "https://127.0.0.1:1", "-token-file", dir + "/token", "-ca-file", dir + "/root.pem", "-netns-dir", dir,
				"-zds-socket", dir + "/zds", "-event-socket", dir + "/event", "-cni-bin-dir", dir, "-cni-conf-dir", dir, "-plugin", "/proc/self/exe",
				"-health", "127.0.0.1:0", "-metrics", "127.0.0.1:0",
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program, dir := build(t, name), t.TempDir()
			root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: fakeca.New(t).Root().Raw})
			for file, text := range map[string][]byte{"root.pem": root, "token": []byte("x"), "resolv.conf": []byte("nameserver 127.0.0.1\n")} {
				if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := exec.Command(program, args(dir)...)
			log := &strings.Builder{}
			c.Stdout, c.Stderr = log, log
			// Its rules are for a namespace of its own, never for this machine.
			c.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			}
			if err := c.Start(); err != nil {
				t.Skipf("this machine has no user namespaces: %v", err)
			}
			ended := make(chan error, 1)
			go func() { ended <- c.Wait() }()
			select {
			case err := <-ended:
				t.Fatalf("it ended: %v\n%s", err, log)
			case <-time.After(settle):
			}
			most, got := budget(t, name, "resident"), resident(t, c.Process.Pid)
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-ended
			t.Logf("%.1f MiB", float64(got)/(1<<20))
			if got > most {
				t.Errorf("%d bytes are resident, budget %d", got, most)
			}
		})
	}
}

func resident(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if w := strings.Fields(line); len(w) == 3 && w[0] == "VmRSS:" {
			n, err := strconv.ParseInt(w[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("the kernel does not say what is resident")
	return 0
}
