package kinds

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// message checks n against a protobuf message in its JSON form, which Istio's own decoder reads without strictness.
func (c *checker) message(n *node, d protoreflect.MessageDescriptor, path string) {
	if n.kind == null || c.wellKnown(n, d, path) {
		return
	}
	if n.kind != mapping {
		c.want(n, path, "a map")
		return
	}
	chosen := map[protoreflect.FullName]string{}
	for _, k := range n.keys {
		f := d.Fields().ByJSONName(k.name)
		if f == nil {
			var known []string
			for i := range d.Fields().Len() {
				known = append(known, d.Fields().Get(i).JSONName())
			}
			c.unknown(k, path, known)
			continue
		}
		if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() && k.value.kind != null {
			if other, ok := chosen[o.FullName()]; ok {
				c.fail(k.line, path, fmt.Sprintf("has both %q and %q", other, k.name), "keep one of them")
			}
			chosen[o.FullName()] = k.name
		}
		c.field(k.value, f, join(path, k.name))
	}
}

func (c *checker) field(n *node, f protoreflect.FieldDescriptor, path string) {
	switch {
	case n.kind == null:
	case f.IsMap():
		if n.kind != mapping {
			c.want(n, path, "a map")
			return
		}
		for _, k := range n.keys {
			c.mapKey(k, f.MapKey(), path)
			c.single(k.value, f.MapValue(), join(path, k.name))
		}
	case f.IsList():
		if n.kind != list {
			c.want(n, path, "a list")
			return
		}
		for i, item := range n.items {
			at := fmt.Sprintf("%s[%d]", path, i)
			if item.kind == null {
				c.fail(item.line, at, "is empty", "remove the item or fill it in")
				continue
			}
			c.single(item, f, at)
		}
	default:
		c.single(n, f, path)
	}
}

func (c *checker) mapKey(k key, f protoreflect.FieldDescriptor, path string) {
	if kind := goKind(f.Kind()); kind != reflect.String && kind != reflect.Bool {
		if i, err := strconv.ParseInt(k.name, 10, 64); err != nil || !fits(i, kind) {
			c.fail(k.line, path, fmt.Sprintf("key %q: want %s", k.name, basicName(kind)), "")
		}
	}
}

func (c *checker) single(n *node, f protoreflect.FieldDescriptor, path string) {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		c.message(n, f.Message(), path)
	case protoreflect.EnumKind:
		c.enum(n, f.Enum(), path)
	case protoreflect.BytesKind:
		if n.kind != scalar {
			c.want(n, path, "base64 text")
		} else if _, err := base64.StdEncoding.DecodeString(n.text); err != nil {
			c.fail(n.line, path, "is not base64: "+err.Error(), "")
		}
	default:
		kind := goKind(f.Kind())
		if s, ok := n.value.(string); ok && n.kind == scalar && (kind == reflect.Int64 || kind == reflect.Uint64) {
			// JSON numbers have 53 bits, so protobuf writes those of 64 in quotes.
			if i, err := strconv.ParseInt(s, 10, 64); err == nil && fits(i, kind) {
				return
			}
		}
		c.basic(n, kind, path)
	}
}

func (c *checker) enum(n *node, e protoreflect.EnumDescriptor, path string) {
	if n.kind != scalar {
		c.want(n, path, "one of "+enumNames(e))
		return
	}
	if i, ok := n.value.(int64); ok && n.plain {
		if i < 0 || i > 1<<31-1 || e.Values().ByNumber(protoreflect.EnumNumber(i)) == nil {
			c.fail(n.line, path, fmt.Sprintf("no value has the number %d", i), "known: "+enumNames(e))
		}
		return
	}
	if e.Values().ByName(protoreflect.Name(n.text)) != nil {
		return
	}
	var known []string
	for i := range e.Values().Len() {
		known = append(known, string(e.Values().Get(i).Name()))
	}
	hint := "known: " + enumNames(e)
	if near, ok := nearest(n.text, known); ok {
		hint = fmt.Sprintf("did you mean %s? %s", near, hint)
	}
	c.fail(n.line, path, fmt.Sprintf("unknown value %q", n.text), hint)
}

func enumNames(e protoreflect.EnumDescriptor) string {
	names := ""
	for i := range e.Values().Len() {
		if i > 0 {
			names += ", "
		}
		names += string(e.Values().Get(i).Name())
	}
	return names
}

// wellKnown checks the messages whose JSON form is not a map of their fields.
func (c *checker) wellKnown(n *node, d protoreflect.MessageDescriptor, path string) bool {
	switch d.FullName() {
	case "google.protobuf.Duration":
		if n.kind != scalar {
			c.want(n, path, "a duration such as 10s")
		} else if _, err := time.ParseDuration(n.text); err != nil {
			c.fail(n.line, path, fmt.Sprintf("%q is not a duration", n.text), "write 10s, 500ms or 1h")
		}
	case "google.protobuf.Timestamp":
		if n.kind != scalar {
			c.want(n, path, "a time such as 2026-01-02T15:04:05Z")
		} else if _, err := time.Parse(time.RFC3339Nano, n.text); err != nil {
			c.fail(n.line, path, fmt.Sprintf("%q is not a time", n.text), "write it as 2026-01-02T15:04:05Z")
		}
	case "google.protobuf.Struct":
		if n.kind != mapping {
			c.want(n, path, "a map")
		}
	case "google.protobuf.ListValue":
		if n.kind != list {
			c.want(n, path, "a list")
		}
	case "google.protobuf.Value", "google.protobuf.Any", "google.protobuf.FieldMask":
	case "google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue",
		"google.protobuf.DoubleValue", "google.protobuf.FloatValue", "google.protobuf.Int32Value",
		"google.protobuf.Int64Value", "google.protobuf.UInt32Value", "google.protobuf.UInt64Value":
		c.single(n, d.Fields().ByName("value"), path)
	default:
		return false
	}
	return true
}

func goKind(k protoreflect.Kind) reflect.Kind {
	switch k {
	case protoreflect.BoolKind:
		return reflect.Bool
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return reflect.Int32
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return reflect.Int64
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return reflect.Uint32
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return reflect.Uint64
	case protoreflect.FloatKind:
		return reflect.Float32
	case protoreflect.DoubleKind:
		return reflect.Float64
	}
	return reflect.String
}
