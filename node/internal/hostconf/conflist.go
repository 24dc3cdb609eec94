// Package hostconf puts the plugin and its configuration on the host and keeps them there.
package hostconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// PluginType is the plugin's name in a network configuration, and the name of its file.
const PluginType = "istio-cni"

// element is one plugin of a list: where its text is, and its type.
type element struct {
	start, end int // in the text
	kind       string
}

// elements finds the plugins of a network configuration list.
func elements(list []byte) ([]element, error) {
	var whole struct {
		Name    string            `json:"name"`
		Plugins []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(list, &whole); err != nil {
		return nil, fmt.Errorf("it is no JSON object: %w", err)
	}
	if len(whole.Plugins) == 0 {
		return nil, errors.New("it lists no plugins")
	}
	at, err := pluginsAt(list)
	if err != nil {
		return nil, err
	}
	var all []element
	for _, raw := range whole.Plugins {
		// RawMessage keeps an element's text as it is; between elements there are only spaces and a comma.
		i := bytes.Index(list[at:], raw)
		if i < 0 {
			return nil, errors.New("its plugins are not where they should be")
		}
		var p struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(raw, &p); err != nil {
			return nil, fmt.Errorf("plugin %d: %w", len(all), err)
		}
		e := element{start: at + i, end: at + i + len(raw), kind: p.Type}
		all, at = append(all, e), e.end
	}
	return all, nil
}

// pluginsAt is the offset just behind the bracket that opens the list.
func pluginsAt(list []byte) (int, error) {
	d := json.NewDecoder(bytes.NewReader(list))
	depth := 0
	for {
		t, err := d.Token()
		if err != nil {
			return 0, errors.New("it has no list of plugins")
		}
		switch v := t.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				depth++
			} else {
				depth--
			}
		case string:
			if depth != 1 {
				continue
			}
			if v != "plugins" { // a key: its value is passed over whole
				var skip json.RawMessage
				if err := d.Decode(&skip); err != nil {
					return 0, err
				}
				continue
			}
			if _, err := d.Token(); err != nil {
				return 0, err
			}
			return int(d.InputOffset()), nil
		}
	}
}

// Insert puts the plugin last into a list, in place of any earlier one of its type, and leaves every other byte alone. Where it
// is already, behind others, it stays: whoever else wants to be last may come after it.
func Insert(list, plugin []byte) ([]byte, error) {
	have, err := elements(list)
	if err != nil {
		return nil, err
	}
	if there(list, have, plugin) {
		return list, nil
	}
	clean, err := Remove(list)
	if err != nil {
		return nil, err
	}
	all, err := elements(clean)
	if err != nil {
		return nil, err
	}
	last := all[len(all)-1]
	out := append([]byte(nil), clean[:last.end]...)
	out = append(out, ",\n    "...)
	out = append(out, plugin...)
	return append(out, clean[last.end:]...), nil
}

// there reports whether a list has the plugin once, as it should be, and not first.
func there(list []byte, all []element, plugin []byte) bool {
	found := 0
	for i, e := range all {
		if e.kind != PluginType {
			continue
		}
		if found++; found > 1 || i == 0 || !bytes.Equal(list[e.start:e.end], plugin) {
			return false
		}
	}
	return found == 1
}

// List makes a list of a configuration of one plugin, whose bytes stay as they are.
func List(single []byte) ([]byte, error) {
	var c struct {
		Version string          `json:"cniVersion"`
		Name    string          `json:"name"`
		Type    string          `json:"type"`
		Plugins json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(single, &c); err != nil {
		return nil, fmt.Errorf("it is no JSON object: %w", err)
	}
	if c.Type == "" || c.Plugins != nil {
		return nil, errors.New("it is no configuration of one plugin")
	}
	if c.Name == "" {
		c.Name = "k8s-pod-network" // Istio's word
	}
	head, err := json.Marshal(struct {
		Version string `json:"cniVersion,omitempty"`
		Name    string `json:"name"`
	}{c.Version, c.Name})
	if err != nil {
		return nil, err
	}
	out := append(bytes.TrimSuffix(head, []byte("}")), `,"plugins":[`...)
	out = append(out, bytes.TrimSpace(single)...)
	return append(out, "]}\n"...), nil
}

// Remove takes the plugin out of a list. What Insert made of a list becomes that list again, byte by byte.
func Remove(list []byte) ([]byte, error) {
	all, err := elements(list)
	if err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].kind != PluginType {
			continue
		}
		if len(all) == 1 {
			return nil, errors.New("it lists no other plugin than " + PluginType)
		}
		from, to := all[max(i-1, 0)].end, all[i].end
		if i == 0 {
			from, to = all[0].start, all[1].start
		}
		list = append(append([]byte(nil), list[:from]...), list[to:]...)
		if all, err = elements(list); err != nil {
			return nil, err
		}
		i = len(all)
	}
	return list, nil
}
