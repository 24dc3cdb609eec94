package caps_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/local/internal/runtime/caps"
)

func TestParse(t *testing.T) {
	for name, want := range map[string]caps.Set{
		"CHOWN": 1, "NET_ADMIN": 1 << unix.CAP_NET_ADMIN, "CAP_SYS_ADMIN": 1 << unix.CAP_SYS_ADMIN, "net_raw": 1 << unix.CAP_NET_RAW,
		"CHECKPOINT_RESTORE": 1 << unix.CAP_CHECKPOINT_RESTORE, "ALL": caps.All,
	} {
		if got, err := caps.Parse(name); err != nil || got != want {
			t.Errorf("Parse(%s) = %x, %v, want %x", name, got, err, want)
		}
	}
	if _, err := caps.Parse("FLY"); err == nil {
		t.Error("an unknown capability was taken")
	}
}

func TestNobodyAsksForTheMachine(t *testing.T) {
	for _, c := range []uint{unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_SYS_MODULE, unix.CAP_DAC_OVERRIDE, unix.CAP_MKNOD, unix.CAP_SYS_RAWIO} {
		if caps.Pod.Has(1 << c) {
			t.Errorf("an ordinary pod may ask for capability %d", c)
		}
	}
}
