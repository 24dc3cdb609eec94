package telemetry

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// Off is above every level that is logged.
const Off = slog.Level(100)

// Trace is below debug.
const Trace = slog.LevelDebug - 4

// Levels says what is logged, per scope, and can change while the program runs. The zero value logs info and above.
type Levels struct {
	now   atomic.Pointer[filter]
	first atomic.Pointer[filter]
}

type filter struct {
	spec     string
	fallback slog.Level
	scopes   map[string]slog.Level
}

// ParseLevels reads a specification such as "info", "debug,access=warn" or "ztunnel::access=off". The part of a scope
// before its last "::" does not matter.
func ParseLevels(spec string) (*Levels, error) {
	l := &Levels{}
	if err := l.Set(spec); err != nil {
		return nil, err
	}
	l.first.Store(l.now.Load())
	return l, nil
}

// Set replaces the specification.
func (l *Levels) Set(spec string) error {
	if len(spec) > 4096 {
		return fmt.Errorf("log levels of %d bytes: longer than 4096", len(spec))
	}
	f := &filter{spec: spec, scopes: map[string]slog.Level{}}
	for part := range strings.SplitSeq(spec, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		scope, name, scoped := strings.Cut(part, "=")
		if !scoped {
			name = scope
		}
		level, ok := levelOf(name)
		if !ok {
			return fmt.Errorf("log level %q: want off, error, warn, info, debug or trace, or scope=level", part)
		}
		if scoped {
			f.scopes[short(scope)] = level
		} else {
			f.fallback = level
		}
	}
	l.now.Store(f)
	return nil
}

// Reset returns to the first specification.
func (l *Levels) Reset() { l.now.Store(l.first.Load()) }

// String is the specification in force.
func (l *Levels) String() string {
	if f := l.now.Load(); f != nil && f.spec != "" {
		return f.spec
	}
	return "info"
}

// Enabled reports whether a scope logs a level.
func (l *Levels) Enabled(scope string, level slog.Level) bool {
	f := l.now.Load()
	if f == nil {
		return level >= slog.LevelInfo
	}
	if at, ok := f.scopes[short(scope)]; ok {
		return level >= at
	}
	return level >= f.fallback
}

func short(scope string) string {
	if i := strings.LastIndex(scope, "::"); i >= 0 {
		return scope[i+2:]
	}
	return scope
}

func levelOf(name string) (slog.Level, bool) {
	switch strings.ToLower(name) {
	case "off":
		return Off, true
	case "error":
		return slog.LevelError, true
	case "warn", "warning":
		return slog.LevelWarn, true
	case "info":
		return slog.LevelInfo, true
	case "debug":
		return slog.LevelDebug, true
	case "trace":
		return Trace, true
	}
	return 0, false
}

func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "error"
	case l >= slog.LevelWarn:
		return "warn"
	case l >= slog.LevelInfo:
		return "info"
	case l >= slog.LevelDebug:
		return "debug"
	}
	return "trace"
}
