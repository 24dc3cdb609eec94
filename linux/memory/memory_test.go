package memory

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// fileBacked is how many bytes of files are resident.
func fileBacked(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if w := strings.Fields(line); len(w) == 3 && w[0] == "RssFile:" {
			n, err := strconv.Atoi(w[1])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Skip("the kernel does not tell what of files is resident")
	return 0
}

func TestFreeUnmapsTheProgram(t *testing.T) {
	before := fileBacked(t)
	if err := Free(); err != nil {
		t.Fatal(err)
	}
	after := fileBacked(t)
	t.Logf("%d KiB before, %d KiB after", before>>10, after>>10)
	if after >= before {
		t.Errorf("%d bytes of files are resident, %d were before", after, before)
	}
}

func TestOnlyWhatNobodyCanWriteIsUnmapped(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-009a8000 r-xp 00000000 fe:00 10 /bin/x":           true,
		"009a8000-00fe2000 r--p 005a8000 fe:00 10 /bin/x":           true,
		"00fe2000-01052000 rw-p 00be2000 fe:00 10 /bin/x":           false,
		"00400000-009a8000 r-xp 00000000 fe:00 10 /bin/y":           false,
		"00400000-009a8000 r--s 00000000 fe:00 10 /bin/x":           false,
		"248e7bc00000-248e7c400000 rw-p 00000000 00:00 0":           false,
		"words-009a8000 r-xp 00000000 fe:00 10 /bin/x":              false,
		"009a8000-00400000 r-xp 00000000 fe:00 10 /bin/x":           false,
		"00400000-009a8000 r-xp 00000000 fe:00 10 /bin/x (deleted)": false,
	} {
		if _, _, ok := readOnly(line, "/bin/x"); ok != want {
			t.Errorf("%q: %v, want %v", line, ok, want)
		}
	}
}
