package cli

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDirectoriesOfTheDeadAreRemoved(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	live, remove, err := ownDir("x-")
	if err != nil {
		t.Fatal(err)
	}
	make := func(name string, files ...string) string {
		dir := filepath.Join(tmp, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	dead := make("x-dead", ownerFile, "more")
	young, other := make("x-young", ownerFile+".new"), make("y-dead", ownerFile)
	outside := make("z", ownerFile)
	link := filepath.Join(tmp, "x-link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	_, removeSecond, err := ownDir("x-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dead); !os.IsNotExist(err) {
		t.Errorf("the dead one's directory is still there: %v", err)
	}
	for _, dir := range []string{live, young, other, link, filepath.Join(outside, ownerFile)} {
		if _, err := os.Lstat(dir); err != nil {
			t.Errorf("%s is gone: %v", dir, err)
		}
	}
	for _, r := range []func() error{remove, removeSecond} {
		if err := r(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(live); !os.IsNotExist(err) {
		t.Errorf("removed, but: %v", err)
	}
}
