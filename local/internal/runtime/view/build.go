package view

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// scratch is where the view is put together, in this process's own mount namespace. /tmp is on every machine and is
// none of the directories that the view shows, so that the view does not show itself.
const scratch = "/tmp"

// builder puts a view together below root. Paths without root are the view's.
type builder struct {
	root string
	own  map[string]bool // directories made of memory, which may be written
}

// private tells which directories of the machine the view has of its own.
func private(name string) bool {
	return slices.Contains([]string{"proc", "sys", "dev", "run", "tmp"}, name)
}

// build makes the view and enters it.
func build(s Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts inside: %w", err)
	}
	b := &builder{root: scratch, own: map[string]bool{}}
	sources, err := opened(s.Mounts)
	if err != nil {
		return err
	}
	if err := hide(s.Hidden); err != nil {
		return err
	}
	if err := memory(b.root, "mode=755,size=64m"); err != nil {
		return err
	}
	b.own["/"] = true
	if err := b.machine(); err != nil {
		return err
	}
	if err := b.system(); err != nil {
		return err
	}
	if err := b.sealSettings(s.Caps); err != nil {
		return err
	}
	// A mirror hides what was mounted below it: make all mount points first, those that need the shallowest mirror before.
	for _, m := range slices.SortedStableFunc(slices.Values(s.Mounts), func(x, y Mount) int { return existing(x.Target) - existing(y.Target) }) {
		if _, err := b.directory(filepath.Dir(filepath.Clean(m.Target))); err != nil {
			return fmt.Errorf("prepare %s: %w", m.Target, err)
		}
		if _, err := b.point(m.Target, sources[m.Target].dir); err != nil {
			return fmt.Errorf("prepare %s: %w", m.Target, err)
		}
	}
	// Parents before children, so that a mount does not cover another.
	mounts := slices.SortedStableFunc(slices.Values(s.Mounts), func(x, y Mount) int { return strings.Compare(x.Target, y.Target) })
	for _, m := range mounts {
		if err := b.mount(m, sources[m.Target]); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(s.Files)) {
		if err := b.file(path, s.Files[path]); err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(s.Links)) {
		if err := b.link(path, s.Links[path]); err != nil {
			return fmt.Errorf("link %s: %w", path, err)
		}
	}
	return b.enter()
}

// existing is how deep the deepest directory of the machine is that a path goes through.
func existing(path string) int {
	for dir := filepath.Dir(filepath.Clean(path)); ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil || dir == "/" {
			return strings.Count(strings.TrimRight(real, "/"), "/")
		}
	}
}

// machine shows every directory of the machine's root that is not private.
func (b *builder) machine() error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if private(e.Name()) {
			continue
		}
		if err := b.show("/"+e.Name(), e); err != nil {
			return fmt.Errorf("show /%s: %w", e.Name(), err)
		}
	}
	for _, dir := range []string{"/run", "/tmp"} {
		if err := os.Mkdir(b.root+dir, 0o755); err != nil {
			return err
		}
		if err := memory(b.root+dir, "mode=1777"); err != nil {
			return err
		}
		b.own[dir] = true
	}
	if err := b.mirror("/etc"); err != nil {
		return err
	}
	// /var/run is where the pods' volumes go; on most machines it is a link to /run.
	if err := b.mirror("/var"); err != nil {
		return err
	}
	if st, err := os.Lstat("/var/run"); err == nil && st.Mode()&os.ModeSymlink == 0 {
		if err := memory(b.root+"/var/run", "mode=755"); err != nil {
			return err
		}
		b.own["/var/run"] = true
	}
	return nil
}

// show makes one entry of the machine visible at its own path: links as they are, everything else read-only.
// What the user may not see is left out.
func (b *builder) show(path string, e os.DirEntry) error {
	at := b.root + path
	switch {
	case e.Type()&os.ModeSymlink != 0:
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return os.Symlink(to, at)
	case e.IsDir():
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
	case e.Type().IsRegular():
		if err := touch(at); err != nil {
			return err
		}
	default:
		return nil // devices and sockets are the machine's own business
	}
	err := bind(path, at, true)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// mirror replaces a directory by a writable one with the same entries.
func (b *builder) mirror(dir string) error {
	if b.own[dir] {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	if err := os.MkdirAll(b.root+dir, 0o755); err != nil {
		return err
	}
	if err := memory(b.root+dir, "mode=755"); err != nil {
		return err
	}
	b.own[dir] = true
	for _, e := range entries {
		if err := b.show(filepath.Join(dir, e.Name()), e); err != nil {
			return fmt.Errorf("show %s: %w", filepath.Join(dir, e.Name()), err)
		}
	}
	return nil
}

// system mounts what the kernel provides.
func (b *builder) system() error {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := os.MkdirAll(b.root+dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", b.root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("sysfs", b.root+"/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, ""); err != nil {
		// Not allowed where the machine's own is not wholly visible, as in a container; few programs miss it.
		if err := bind("/sys", b.root+"/sys", true); err != nil {
			return fmt.Errorf("show /sys: %w", err)
		}
	}
	return b.devices()
}

func (b *builder) devices() error {
	if err := memory(b.root+"/dev", "mode=755,size=1m"); err != nil {
		return err
	}
	b.own["/dev"] = true
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		at := b.root + "/dev/" + name
		if err := touch(at); err != nil {
			return err
		}
		if err := bind("/dev/"+name, at, false); err != nil {
			return fmt.Errorf("show /dev/%s: %w", name, err)
		}
	}
	for _, l := range [][2]string{{"/proc/self/fd", "fd"}, {"fd/0", "stdin"}, {"fd/1", "stdout"}, {"fd/2", "stderr"}, {"pts/ptmx", "ptmx"}} {
		if err := os.Symlink(l[0], b.root+"/dev/"+l[1]); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/dev/pts", "/dev/shm"} {
		if err := os.Mkdir(b.root+dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("devpts", b.root+"/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	return memory(b.root+"/dev/shm", "mode=1777")
}

// mount does one mount of the specification.
func (b *builder) mount(m Mount, from source) error {
	if m.Source == "" {
		at, err := b.point(m.Target, true)
		if err != nil {
			return err
		}
		b.own[strings.TrimPrefix(at, b.root)] = true
		return memory(at, "mode=1777")
	}
	at, err := b.point(m.Target, from.dir)
	if err != nil {
		return err
	}
	if !m.ReadOnly && from.dir {
		b.own[strings.TrimPrefix(at, b.root)] = true
	}
	return from.attach(at, m.ReadOnly)
}

// point makes sure that a path exists in the view to mount on, and says where it is outside, links followed.
func (b *builder) point(target string, dir bool) (string, error) {
	if !filepath.IsAbs(target) {
		return "", fmt.Errorf("path %q is not absolute", target)
	}
	parent, err := b.directory(filepath.Dir(filepath.Clean(target)))
	if err != nil {
		return "", err
	}
	path := filepath.Join(parent, filepath.Base(target))
	at := b.root + path
	if st, err := os.Lstat(at); err == nil && st.Mode()&os.ModeSymlink == 0 && st.IsDir() == dir {
		return at, nil
	}
	if err := b.writable(parent); err != nil {
		return "", err
	}
	if err := os.Remove(at); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("make a mount point: %w", err)
	}
	if dir {
		return at, os.Mkdir(at, 0o755)
	}
	return at, touch(at)
}

// directory makes sure that a directory exists in the view. The result is its path with links followed inside the view.
func (b *builder) directory(path string) (string, error) {
	done := "/"
	rest := strings.Split(strings.Trim(path, "/"), "/")
	for hops := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			done = filepath.Dir(done)
			continue
		}
		next := filepath.Join(done, name)
		st, err := os.Lstat(b.root + next)
		switch {
		case errors.Is(err, os.ErrNotExist):
			if err := b.writable(done); err != nil {
				return "", err
			}
			if err := os.Mkdir(b.root+next, 0o755); err != nil {
				return "", fmt.Errorf("make a directory for a mount: %w", err)
			}
		case err != nil:
			return "", err
		case st.Mode()&os.ModeSymlink != 0:
			if hops++; hops > 40 {
				return "", fmt.Errorf("%s: too many links", path)
			}
			to, err := os.Readlink(b.root + next)
			if err != nil {
				return "", err
			}
			if filepath.IsAbs(to) {
				done = "/"
			}
			rest = append(strings.Split(strings.Trim(to, "/"), "/"), rest...)
			continue
		case !st.IsDir():
			return "", fmt.Errorf("%s is not a directory", next)
		}
		done = next
	}
	return done, nil
}

// writable makes sure that entries can be made in a directory of the view: those of the machine become mirrors.
func (b *builder) writable(dir string) error {
	if b.own[dir] || unix.Access(b.root+dir, unix.W_OK) == nil {
		return nil
	}
	return b.mirror(dir)
}

func (b *builder) file(path, content string) error {
	at, err := b.fresh(path)
	if err != nil {
		return err
	}
	return os.WriteFile(at, []byte(content), 0o644)
}

func (b *builder) link(path, to string) error {
	at, err := b.fresh(path)
	if err != nil {
		return err
	}
	return os.Symlink(to, at)
}

// fresh makes room for a new entry, in place of the machine's if there is one.
func (b *builder) fresh(path string) (string, error) {
	parent, err := b.directory(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	if err := b.writable(parent); err != nil {
		return "", err
	}
	at := b.root + filepath.Join(parent, filepath.Base(path))
	if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return "", err
	}
	if err := os.Remove(at); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return at, nil
}

// enter makes the view the root of this process.
func (b *builder) enter() error {
	if err := unix.Chdir(b.root); err != nil {
		return err
	}
	// The old root is put over the new one, and then taken away from there.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the machine's root: %w", err)
	}
	return unix.Chdir("/")
}

func memory(at, options string) error {
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount memory at %s: %w", at, err)
	}
	return nil
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
