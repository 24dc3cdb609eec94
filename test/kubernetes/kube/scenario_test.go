package kube

import "testing"

func TestTelling(t *testing.T) {
	const logs = "[a] 1\n[a] access connection complete\n[b] 2\n[a] access connection complete error=\"reset\"\n[a] 3\n"
	if got, want := telling(logs, 2), "[a] access connection complete error=\"reset\"\n[a] 3\n[b] 2\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
