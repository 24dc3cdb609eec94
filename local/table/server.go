package table

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Embed says what of each object a server's table carries beside the cells.
type Embed string

// The ways, as Kubernetes' API names them.
const (
	EmbedNone     Embed = "None"
	EmbedMetadata Embed = "Metadata"
	EmbedObject   Embed = "Object"
)

// Of is the table that an API server makes of objects of a kind, for clients that leave the columns to it.
func Of(kind kinds.Kind, objects []kinds.Object, opt Options, embed Embed) (*metav1.Table, error) {
	opt.Wide = true // clients leave out what they were not asked for, by the columns' priority
	cols := shown(kind, opt)
	t := &metav1.Table{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "Table"}, Rows: []metav1.TableRow{}}
	for _, c := range cols {
		d := metav1.TableColumnDefinition{Name: title(c.title), Type: "string", Description: "Column " + c.title + "."}
		if c.title == "NAME" {
			d.Format = "name"
		}
		if c.wide {
			d.Priority = 1
		}
		t.ColumnDefinitions = append(t.ColumnDefinitions, d)
	}
	for _, o := range objects {
		row := metav1.TableRow{}
		for _, c := range cols {
			row.Cells = append(row.Cells, c.value(o, opt))
		}
		raw, err := embedded(o, embed)
		if err != nil {
			return nil, err
		}
		row.Object = runtime.RawExtension{Raw: raw}
		t.Rows = append(t.Rows, row)
	}
	return t, nil
}

func embedded(o kinds.Object, how Embed) ([]byte, error) {
	full, err := kinds.EncodeJSON(o)
	if err != nil || how == EmbedObject {
		return full, err
	}
	if how == EmbedNone {
		return nil, nil
	}
	var meta struct {
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := json.Unmarshal(full, &meta); err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta.Metadata})
}

// title is a column's name as API servers write it: clients make it upper case.
func title(s string) string {
	b := []byte(s)
	for i := 1; i < len(b); i++ {
		if b[i] >= 'A' && b[i] <= 'Z' && b[i-1] != ' ' && b[i-1] != '(' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}
