package local

import (
	"slices"
	"testing"
)

func TestOnlyHomesAreHidden(t *testing.T) {
	for dir, want := range map[string]bool{
		"/home/jane": true, "/root": true, "/var/lib/jane": true, "/data/users/jane/": true, "/Users": true,
		"/": false, "": false, "//": false, "home": false, "/usr": false, "/usr/": false, "/var": false, "/tmp": false, "/etc": false,
	} {
		if got := hideable(dir); got != want {
			t.Errorf("%q: %v, want %v", dir, got, want)
		}
	}
	t.Setenv("HOME", "/")
	if slices.Contains(hiddenDirs(), "/") {
		t.Error("everything is hidden")
	}
	t.Setenv("HOME", "/srv/jane")
	if !slices.Contains(hiddenDirs(), "/srv/jane") {
		t.Error("this user's home is seen")
	}
}
