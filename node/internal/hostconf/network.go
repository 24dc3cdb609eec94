package hostconf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// ErrNoNetwork means that the node's own network plugin has not written its configuration yet.
var ErrNoNetwork = errors.New("the node's network plugin has not written its configuration (*.conflist, *.conf) yet")

// saved is what a configuration of one plugin is called while a list takes its place.
const saved = ".before-ambit"

// network chains the plugin into the configuration that a runtime uses: the first by name that it can read. One that cannot be
// read keeps nobody from starting pods, so it may not keep the plugin out of the next.
func (k *Keeper) network(d dir) error {
	names, err := d.names()
	if err != nil {
		return err
	}
	var refused []error
	for _, n := range names {
		ext := filepath.Ext(n)
		if strings.HasPrefix(n, ".") || n == k.conf.Owned || ext != ".conflist" && ext != ".conf" && ext != ".json" || ownedFile(d, n) {
			continue
		}
		if to, err := k.chain(d, n); err == nil {
			return k.settleOwned(d, names, to)
		} else if bad := (*unreadableError)(nil); !errors.As(err, &bad) {
			return err
		} else {
			refused = append(refused, err)
		}
	}
	return errors.Join(append(refused, ErrNoNetwork)...)
}

// unreadableError is a file that no runtime would use.
type unreadableError struct {
	name string
	err  error
}

func (e *unreadableError) Error() string { return e.name + ": " + e.err.Error() }
func (e *unreadableError) Unwrap() error { return e.err }

// chain makes of a configuration one with the plugin in it, and says which file that is.
func (k *Keeper) chain(d dir, name string) (to string, err error) {
	have, mode, err := d.read(name)
	if err != nil {
		return "", err
	}
	list, single := have, filepath.Ext(name) != ".conflist"
	if single {
		if list, err = List(have); err != nil {
			return "", &unreadableError{name, err}
		}
	}
	owned := k.mayOwn(name)
	p, err := k.plugin(owned)
	if err != nil {
		return "", err
	}
	want, err := Insert(list, p)
	if err != nil {
		return "", &unreadableError{name, err}
	}
	to = name
	switch {
	case owned:
		to = k.conf.Owned
	case single:
		to = strings.TrimSuffix(name, filepath.Ext(name)) + ".conflist"
	}
	if to != name && !owned {
		if other, _, err := d.read(to); err == nil && bytes.Equal(strip(other), other) {
			return "", fmt.Errorf("%s and %s are both there: remove the one that is not used", name, to)
		}
	}
	if !d.same(to, want, mode) {
		if err := k.calm(d); err != nil {
			return "", err
		}
		if err := d.replace(to, bytes.NewReader(want), mode); err != nil {
			return "", fmt.Errorf("write %s: %w", to, err)
		}
		k.conf.Log.Info("plugin chained into the node's network configuration", "file", filepath.Join(d.Name(), to))
	}
	if single && !owned { // or a runtime would go on using it: it comes first by name
		if err := d.Rename(name, name+saved); err != nil {
			return "", fmt.Errorf("put %s aside: %w", name, err)
		}
		return to, d.sync()
	}
	return to, nil
}

// strip is a list without the plugin, or what it is that is no list.
func strip(list []byte) []byte {
	without, err := Remove(list)
	if err != nil {
		return list
	}
	return without
}

// unchain takes the plugin out of every configuration, so that each is again what it was.
func (k *Keeper) unchain(d dir) error {
	names, err := d.names()
	if err != nil {
		return err
	}
	var failed []error
	for _, n := range names {
		switch {
		case n == k.conf.Owned || ownedFile(d, n):
			failed = append(failed, d.gone(n))
		case strings.HasSuffix(n, saved):
			failed = append(failed, restore(d, n))
		case filepath.Ext(n) == ".conflist":
			failed = append(failed, k.take(d, n))
		}
	}
	return errors.Join(failed...)
}

// take takes the plugin out of a list; a list that is somebody else's alone stays untouched.
func (k *Keeper) take(d dir, name string) error {
	have, mode, err := d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	without := strip(have)
	if bytes.Equal(have, without) {
		return nil
	}
	return d.replace(name, bytes.NewReader(without), mode)
}

// restore brings back a configuration of one plugin that a list took the place of.
func restore(d dir, name string) error {
	was := strings.TrimSuffix(name, saved)
	single, _, err := d.read(name)
	if err != nil {
		return err
	}
	list := strings.TrimSuffix(was, filepath.Ext(was)) + ".conflist"
	made, err := List(single)
	if err != nil {
		return err
	}
	have, _, err := d.read(list)
	if err == nil {
		have, err = Remove(have)
	}
	if err != nil || !bytes.Equal(have, made) {
		return fmt.Errorf("%s is not what was made of %s any more: keep the one that is right by hand", list, name)
	}
	if err := d.Rename(name, was); err != nil {
		return err
	}
	return errors.Join(d.gone(list), d.sync())
}
