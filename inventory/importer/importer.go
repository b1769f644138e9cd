package importer

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"mayfly/internal/hint"
)

// Bounds of what is read.
const (
	MaxSize    = 64 << 20 // bytes of a source
	maxRecords = 100_000
	maxFields  = 1000 // of one record
	maxDepth   = 32   // of nested values
	maxValue   = 16 << 10
)

// Formats that are read.
const (
	CSV       = "csv"
	JSON      = "json"
	Ansible   = "ansible"
	Terraform = "terraform"
)

// Formats are all of them.
var Formats = []string{CSV, JSON, Ansible, Terraform}

// Record is one machine as its source has it.
type Record struct {
	Place  string            // "hosts.csv:12", "state.json: aws_instance.vpn[3]"
	Fields map[string]string // flat: nested keys are joined by dots, elements of lists by their number
}

// Parse reads a source. Its errors begin with the place.
func Parse(format, name string, data []byte) ([]Record, error) {
	if len(data) > MaxSize {
		return nil, hint.New(fmt.Errorf("%s: longer than %d bytes", name, MaxSize), "import it in parts")
	}
	var records []Record
	var err error
	switch format {
	case CSV:
		records, err = parseCSV(name, data)
	case JSON:
		records, err = parseJSON(name, data)
	case Ansible:
		records, err = parseAnsible(name, data)
	case Terraform:
		records, err = parseTerraform(name, data)
	default:
		return nil, fmt.Errorf("there is no format %q: it is one of %s", format, strings.Join(Formats, ", "))
	}
	if err != nil {
		return nil, err
	}
	if len(records) > maxRecords {
		return nil, hint.New(fmt.Errorf("%s: %d machines: at most %d", name, len(records), maxRecords), "import it in parts")
	}
	if len(records) == 0 {
		return nil, hint.New(fmt.Errorf("%s: no machine in it", name), "see that --from names its format")
	}
	return records, nil
}

// flatten adds a decoded JSON or YAML value to fields under its dotted key.
func flatten(fields map[string]string, key string, value any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%q is nested deeper than %d", key, maxDepth)
	}
	join := func(k string) string {
		if key == "" {
			return k
		}
		return key + "." + k
	}
	switch v := value.(type) {
	case nil:
		return nil
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if err := flatten(fields, join(k), v[k], depth+1); err != nil {
				return err
			}
		}
		return nil
	case map[any]any:
		for k, x := range v {
			if err := flatten(fields, join(fmt.Sprint(k)), x, depth+1); err != nil {
				return err
			}
		}
		return nil
	case []any:
		for i, x := range v {
			if err := flatten(fields, join(fmt.Sprint(i)), x, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	text := fmt.Sprint(value)
	if len(text) > maxValue {
		return nil // certificates, scripts: nothing that a server's table has
	}
	if len(fields) >= maxFields {
		return fmt.Errorf("more than %d fields", maxFields)
	}
	fields[key] = text
	return nil
}
