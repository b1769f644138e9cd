package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"mayfly/internal/hint"
)

// decodeJSON reads one value with numbers as they are written.
func decodeJSON(name string, data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more after the first value")
		}
	}
	if err == nil {
		return nil
	}
	at := d.InputOffset()
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = s.Offset
	}
	return fmt.Errorf("%s:%d: %w", name, 1+bytes.Count(data[:min(at, int64(len(data)))], []byte("\n")), err)
}

// parseJSON reads a list of objects, an object with such a list under "servers" or "hosts", or one object for each machine under its name.
func parseJSON(name string, data []byte) ([]Record, error) {
	var v any
	if err := decodeJSON(name, data, &v); err != nil {
		return nil, err
	}
	if o, ok := v.(map[string]any); ok {
		for _, key := range []string{"servers", "hosts"} {
			if inner, there := o[key]; there && len(o) == 1 {
				v = inner
			}
		}
	}
	switch list := v.(type) {
	case []any:
		var records []Record
		for i, x := range list {
			o, ok := x.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("%s: element %d is no object", name, i+1)
			}
			r := Record{Place: fmt.Sprintf("%s: element %d", name, i+1), Fields: map[string]string{}}
			if err := flatten(r.Fields, "", o, 0); err != nil {
				return nil, fmt.Errorf("%s: %w", r.Place, err)
			}
			records = append(records, r)
		}
		return records, nil
	case map[string]any:
		return named(name, list)
	}
	return nil, hint.New(fmt.Errorf("%s: neither a list nor an object", name), `[{"name": "se-1", …}], {"servers": […]} or {"se-1": {…}}`)
}

// named are machines by their names.
func named(name string, all map[string]any) ([]Record, error) {
	var records []Record
	for _, key := range slices.Sorted(maps.Keys(all)) {
		r := Record{Place: name + ": " + key, Fields: map[string]string{}}
		o, ok := all[key].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s is no object", r.Place)
		}
		if err := flatten(r.Fields, "", o, 0); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Place, err)
		}
		if _, has := r.Fields["name"]; !has {
			r.Fields["name"] = key
		}
		records = append(records, r)
	}
	return records, nil
}
