package cli

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// source is one text of objects and the name that errors give it.
type source struct {
	name string
	text []byte
}

// sources reads what -f names: files, directories (with -R their folders too), and - for standard input.
func sources(env Env, names []string, recursive bool) ([]source, error) {
	var all []source
	add := func(path string) error {
		b, err := readFile(path, maxObjects)
		if err != nil {
			return err
		}
		all = append(all, source{path, b})
		return nil
	}
	for _, name := range names {
		switch {
		case name == "-":
			b, err := readAll(env.In, "standard input", maxObjects)
			if err != nil {
				return nil, err
			}
			all = append(all, source{"<stdin>", b})
			continue
		case strings.Contains(name, "://"):
			return nil, fmt.Errorf("%s: ambit fetches nothing from the network; save the file and name it", name)
		}
		st, err := os.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("the path %q does not exist", name)
		}
		if !st.IsDir() {
			if err := add(name); err != nil {
				return nil, err
			}
			continue
		}
		before := len(all)
		err = filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && path != name && !recursive:
				return filepath.SkipDir
			case !d.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)):
				return add(path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(all) == before {
			return nil, fmt.Errorf("the directory %q holds no .yaml, .yml or .json file", name)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("name what to read with -f FILE, -f DIRECTORY or -f -")
	}
	return all, nil
}
