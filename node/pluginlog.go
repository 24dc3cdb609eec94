package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/node/cniplugin"
)

const (
	// maxLog bounds what one call of the plugin may have to say, maxLines in how many lines.
	maxLog   = 1 << 20
	maxLines = 200
)

// line is one that the plugin wrote.
type line struct {
	level slog.Level
	msg   string
	attrs []any // names and values, sorted by name
}

// parseLog reads what the plugin sends, Istio's form: a list of lines, each JSON in a string. What is no line is passed over.
func parseLog(r io.Reader) ([]line, error) {
	var texts []string
	if err := json.NewDecoder(io.LimitReader(r, maxLog)).Decode(&texts); err != nil {
		return nil, fmt.Errorf("log is not understood: %w", err)
	}
	var all []line
	for _, text := range texts[:min(len(texts), maxLines)] {
		var values map[string]any
		if json.Unmarshal([]byte(text), &values) != nil {
			continue
		}
		level, _ := values["level"].(string)
		msg, isText := values["msg"].(string)
		if !isText {
			continue
		}
		l := line{msg: msg}
		if l.level.UnmarshalText([]byte(level)) != nil {
			l.level = slog.LevelInfo
		}
		names := make([]string, 0, len(values))
		for n := range values {
			if n != "level" && n != "msg" && n != "time" {
				names = append(names, n)
			}
		}
		slices.Sort(names)
		for _, n := range names {
			l.attrs = append(l.attrs, n, values[n])
		}
		all = append(all, l)
	}
	return all, nil
}

// servePluginLog makes what the plugin says part of the agent's log: the plugin's own output is the runtime's.
func (a *agent) servePluginLog(ctx context.Context) error {
	l, err := listenUnix(filepath.Join(filepath.Dir(a.conf.EventSocket), cniplugin.LogSocket))
	if err != nil {
		return fmt.Errorf("socket for the plugin's log: %w", err)
	}
	log := a.log.With("from", "istio-cni")
	mux := http.NewServeMux()
	mux.HandleFunc("POST /log", func(w http.ResponseWriter, r *http.Request) {
		lines, err := parseLog(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, l := range lines {
			log.Log(r.Context(), l.level, l.msg, l.attrs...)
		}
	})
	return lifecycle.HTTP{}.Serve(ctx, l, mux)
}

// listenUnix opens a socket for root alone, in place of what an earlier agent left.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the path may be the next agent's by then
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
