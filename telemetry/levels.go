package telemetry

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
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
	fallback slog.Level
	scopes   map[string]slog.Level
}

// ParseLevels reads a specification such as "info", "debug,access=warn" or "ztunnel::proxy=off".
func ParseLevels(spec string) (*Levels, error) {
	l := &Levels{}
	if err := l.Set(spec); err != nil {
		return nil, err
	}
	l.first.Store(l.now.Load())
	return l, nil
}

const maxSpec = 4096

// Set adds a specification to that in force: what it does not name stays as it is.
func (l *Levels) Set(spec string) error {
	if len(spec) > maxSpec {
		return fmt.Errorf("log levels of %d bytes: longer than %d", len(spec), maxSpec)
	}
	f := &filter{scopes: map[string]slog.Level{}}
	if now := l.now.Load(); now != nil {
		f.fallback, f.scopes = now.fallback, maps.Clone(now.scopes)
	}
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
			f.scopes[within(scope)] = level
		} else {
			f.fallback = level
		}
	}
	if len(f.scopes) > maxScopes {
		return fmt.Errorf("log levels of %d scopes: more than %d", len(f.scopes), maxScopes)
	}
	l.now.Store(f)
	return nil
}

const maxScopes = 256

// Reset returns to the first specification.
func (l *Levels) Reset() { l.now.Store(l.first.Load()) }

// String is the specification in force.
func (l *Levels) String() string {
	f := l.now.Load()
	if f == nil {
		return "info"
	}
	var parts []string
	for _, scope := range slices.Sorted(maps.Keys(f.scopes)) {
		parts = append(parts, scope+"="+levelName(f.scopes[scope]))
	}
	return strings.Join(append(parts, levelName(f.fallback)), ",") // the general after the special, as Istio's says it
}

// Enabled reports whether a scope logs a level. What is said of a scope holds for those within it, which are longer by
// "::" and a name; the longest counts. A name alone also means the scope that ends with it.
func (l *Levels) Enabled(scope string, level slog.Level) bool {
	f := l.now.Load()
	if f == nil {
		return level >= slog.LevelInfo
	}
	if len(f.scopes) == 0 {
		return level >= f.fallback
	}
	scope = within(scope)
	for part := scope; part != ""; {
		if at, ok := f.scopes[part]; ok {
			return level >= at
		}
		part = part[:max(0, strings.LastIndex(part, "::"))]
	}
	if i := strings.LastIndex(scope, "::"); i >= 0 {
		if at, ok := f.scopes[scope[i+2:]]; ok {
			return level >= at
		}
	}
	return level >= f.fallback
}

// within is a scope as it is called inside the program, whose own name comes before it elsewhere.
func within(scope string) string { return strings.TrimPrefix(scope, "ztunnel::") }

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
	case l >= Off:
		return "off"
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
