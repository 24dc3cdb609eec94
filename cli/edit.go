package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func newEdit(s *scope) *cobra.Command {
	return &cobra.Command{
		Use: "edit (KIND NAME | KIND/NAME)", Short: "Change an object in an editor", Args: cobra.RangeArgs(1, 2),
		Long: "Open an object in $EDITOR (vi if there is none) and apply what is saved. What cannot be applied stays in the file that the\n" +
			"error names.",
		Example: "  ambit local edit vs bookinfo\n  EDITOR=nano ambit local edit authorizationpolicy/productpage-viewer",
		RunE: func(c *cobra.Command, args []string) error {
			ts, err := targets(args)
			if err != nil {
				return err
			}
			if len(ts) != 1 || ts[0].name == "" {
				return usage("name one object to edit")
			}
			return s.edit(c.Context(), ts[0])
		},
	}
}

func (s *scope) edit(ctx context.Context, t target) (err error) {
	o, err := s.client().Get(ctx, t.kind, s.namespace, t.name)
	if err != nil {
		return hinted(ctx, s.client(), err, t.kind, s.namespace, t.name)
	}
	before, err := kinds.Encode(o)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ambit-edit-")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, t.name+".yaml")
	if err := os.WriteFile(file, before, 0o600); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	after, err := s.edited(ctx, file)
	if err == nil && bytes.Equal(before, after) {
		fmt.Fprintln(s.env.Out, "Edit cancelled, no changes made.")
		return os.RemoveAll(dir)
	}
	if err == nil {
		err = s.save(ctx, t, o, after)
	}
	if err != nil {
		return fmt.Errorf("%w\nWhat was written is in %s", err, file)
	}
	fmt.Fprintf(s.env.Out, "%s edited\n", named(t.kind.Kind, t.kind.Group, t.name))
	return os.RemoveAll(dir)
}

// edited lets a person change a file and gives what it then says.
func (s *scope) edited(ctx context.Context, file string) ([]byte, error) {
	editor := cmp.Or(os.Getenv("KUBE_EDITOR"), os.Getenv("EDITOR"), "vi")
	// The variable is a command line of the person's own shell, as everywhere.
	cmd := exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "sh", file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("editor %s: %w", editor, err)
	}
	return readFile(file, maxObjects)
}

// save replaces an object, unless somebody else changed it meanwhile.
func (s *scope) save(ctx context.Context, t target, before kinds.Object, text []byte) error {
	decoded, err := kinds.Decode(t.name+".yaml", text)
	if err != nil {
		return err
	}
	if len(decoded) != 1 || kinds.Of(decoded[0].Object).Resource() != t.kind.Resource() || decoded[0].Object.GetName() != t.name {
		return fmt.Errorf("the file must hold %s %q and nothing else", t.kind.Kind, t.name)
	}
	if p := decoded[0].Problems(); len(p) > 0 {
		return p
	}
	o := decoded[0].Object
	o.SetResourceVersion(before.GetResourceVersion())
	_, err = s.client().Replace(ctx, t.kind, before.GetNamespace(), o)
	return err
}
