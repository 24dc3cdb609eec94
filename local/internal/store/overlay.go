package store

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	kjson "sigs.k8s.io/json"
)

// overlay is the status that the control plane wrote for one object, by field.
type overlay map[string]json.RawMessage

// readOverlay brings the store up to date with a file of status. A broken one changes nothing.
func (s *Store) readOverlay(path string) {
	full := filepath.Join(s.status, path)
	data, err := os.ReadFile(full)
	if os.IsNotExist(err) {
		s.mu.Lock()
		delete(s.overlays, path)
		s.mu.Unlock()
		return
	}
	found, fields := []kinds.Located(nil), overlay(nil)
	if err == nil {
		found, err = kinds.Decode(full, data)
	}
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%s holds %d objects, not one", full, len(found))
	}
	if err == nil {
		fields, err = statusFields(found[0].Object)
	}
	if err != nil {
		s.log.Warn("status file ignored", "file", full, "err", err)
		return
	}
	s.mu.Lock()
	s.overlays[path] = fields
	s.mu.Unlock()
}

func statusFields(o kinds.Object) (overlay, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("write the status of %s as JSON: %w", o.GetName(), err)
	}
	var all struct{ Status overlay }
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("read the status of %s: %w", o.GetName(), err)
	}
	for name, value := range all.Status {
		if slices.Contains([]string{"{}", "null", "[]", `""`, "0"}, string(value)) {
			delete(all.Status, name) // Go wrote it, nobody meant it
		}
	}
	return all.Status, nil
}

// restatus shows an object again after its file of status changed.
func (s *Store) restatus(path string) error {
	s.write.Lock()
	defer s.write.Unlock()
	s.readOverlay(path)
	for _, set := range s.sets {
		for key, e := range set.entries { // only s.write's holder changes entries
			if pathOf(set.kind, key) != path {
				continue
			}
			next := s.withOverlay(set.kind, key, e.base)
			was, err := json.Marshal(e.shown)
			if err != nil {
				return fmt.Errorf("write %s as JSON: %w", key, err)
			}
			is, err := json.Marshal(next)
			if err != nil {
				return fmt.Errorf("write %s as JSON: %w", key, err)
			}
			if string(was) == string(is) {
				return nil
			}
			_, err = s.commit(set.kind, key, copyOf(e.base), e.body, true)
			return err
		}
	}
	return nil
}

// withOverlay is an object with the status that the control plane wrote for it.
func (s *Store) withOverlay(k kinds.Kind, key Key, base kinds.Object) kinds.Object {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.withOverlayLocked(k, key, base)
}

func (s *Store) withOverlayLocked(k kinds.Kind, key Key, base kinds.Object) kinds.Object {
	fields := s.overlays[pathOf(k, key)]
	if len(fields) == 0 || !hasStatus(base) {
		return base
	}
	shown, err := merged(k, base, fields)
	if err != nil {
		s.log.Warn("status file does not fit its object", "object", key.String(), "err", err)
		return base
	}
	return shown
}

func merged(k kinds.Kind, base kinds.Object, fields overlay) (kinds.Object, error) {
	data, err := json.Marshal(base)
	if err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	status := overlay{}
	if len(all["status"]) > 0 {
		if err := json.Unmarshal(all["status"], &status); err != nil {
			return nil, err
		}
	}
	for name, value := range fields {
		status[name] = value
	}
	if all["status"], err = json.Marshal(status); err != nil {
		return nil, err
	}
	if data, err = json.Marshal(all); err != nil {
		return nil, err
	}
	o := k.New()
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, o); err != nil {
		return nil, err
	}
	return o, nil
}
