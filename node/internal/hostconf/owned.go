package hostconf

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
)

// ownedKey marks the plugin in a file that is the agent's alone, so that any later agent knows whose the file is, whatever it is
// called by then.
const ownedKey = "owned_conf"

// mayOwn reports whether the agent's own file takes the place of a configuration: only if it comes first by name, for a runtime
// would go on using the other. Otherwise the plugin is chained into the other one itself.
func (k *Keeper) mayOwn(name string) bool { return k.conf.Owned != "" && k.conf.Owned < name }

// ownedFile reports whether a file is a copy that an agent made for itself.
func ownedFile(d dir, name string) bool {
	if !strings.Contains(name, ".conflist") { // Cilium may have added something
		return false
	}
	list, _, err := d.read(name)
	if err != nil {
		return false
	}
	all, err := elements(list)
	return err == nil && slices.ContainsFunc(all, func(e element) bool {
		var p map[string]json.RawMessage
		return e.kind == PluginType && json.Unmarshal(list[e.start:e.end], &p) == nil && p[ownedKey] != nil
	})
}

// settleOwned takes away what an agent left that was set up otherwise, now that the configuration in use has the plugin: copies under
// other names, and the plugin in the node's own files if there is a copy.
func (k *Keeper) settleOwned(d dir, names []string, to string) error {
	var failed []error
	for _, n := range names {
		switch {
		case n == to || strings.HasPrefix(n, "."):
		case filepath.Ext(n) == ".conflist" && ownedFile(d, n):
			failed = append(failed, d.gone(n))
		case to != k.conf.Owned:
		case strings.HasSuffix(n, saved):
			failed = append(failed, restore(d, n))
		case filepath.Ext(n) == ".conflist":
			failed = append(failed, k.take(d, n))
		}
	}
	return errors.Join(failed...)
}

// ciliumBackup is what Cilium adds to the names of others' configurations when it takes them away.
const ciliumBackup = ".cilium_bak"

// undoing says who undoes the plugin's configuration, as far as that is to be seen.
func undoing(d dir) error {
	names, err := d.names()
	if err == nil && slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ciliumBackup) && ownedFile(d, n) }) {
		return errors.New("Cilium takes the plugin's configuration away: set its value cni.exclusive to false (cni-exclusive in its ConfigMap)")
	}
	return errors.New("another program undoes the plugin's configuration again and again: find out which one writes these files")
}
