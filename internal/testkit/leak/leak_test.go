package leak

import (
	"strings"
	"testing"
)

func TestWhatIsLeftIsFound(t *testing.T) {
	if left := stacks(); len(left) > 0 {
		t.Skipf("something is left already:\n%s", strings.Join(left, "\n\n"))
	}
	stop, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		<-stop
	}()
	found := stacks()
	close(stop)
	<-gone
	if len(found) != 1 || !strings.Contains(found[0], "TestWhatIsLeftIsFound") {
		t.Errorf("found %q", found)
	}
}
