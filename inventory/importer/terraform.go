package importer

import (
	"encoding/json"
	"fmt"

	"mayfly/internal/hint"
)

// What a Terraform record has beside the attributes of its resource.
const (
	typeField    = "terraform_type"
	addressField = "terraform_address"
)

// stateVersion is the version of state files that is read (Terraform 0.12 and later; OpenTofu writes the same).
const stateVersion = 4

// terraformState is a state file, or what `terraform show -json` prints.
type terraformState struct {
	Version   int `json:"version"`
	Resources []struct {
		Module    string `json:"module"`
		Mode      string `json:"mode"`
		Type      string `json:"type"`
		Name      string `json:"name"`
		Instances []struct {
			IndexKey   any            `json:"index_key"`
			Attributes map[string]any `json:"attributes"`
		} `json:"instances"`
	} `json:"resources"`

	FormatVersion string           `json:"format_version"`
	Values        *terraformValues `json:"values"`
}

type terraformValues struct {
	Root terraformModule `json:"root_module"`
}

type terraformModule struct {
	Resources []struct {
		Address string         `json:"address"`
		Mode    string         `json:"mode"`
		Type    string         `json:"type"`
		Name    string         `json:"name"`
		Values  map[string]any `json:"values"`
	} `json:"resources"`
	Children []terraformModule `json:"child_modules"`
}

// parseTerraform reads managed resources; data sources are what somebody else manages.
func parseTerraform(name string, data []byte) ([]Record, error) {
	var s terraformState
	if err := decodeJSON(name, data, &s); err != nil {
		return nil, err
	}
	switch {
	case s.FormatVersion != "" && s.FormatVersion[0] != '1':
		return nil, fmt.Errorf("%s: format_version %q: 1.x is read", name, s.FormatVersion)
	case s.FormatVersion != "":
		if s.Values == nil {
			return nil, hint.New(fmt.Errorf("%s: there are no values in it", name), "`terraform show -json` of a state, not of a plan")
		}
		return showModule(name, nil, s.Values.Root, 0)
	case s.Version != stateVersion:
		return nil, hint.New(fmt.Errorf("%s: state version %d: %d is read", name, s.Version, stateVersion), "`terraform show -json` writes what is read of any version")
	}
	var records []Record
	for _, r := range s.Resources {
		if r.Mode != "managed" {
			continue
		}
		for _, x := range r.Instances {
			address := r.Type + "." + r.Name
			if r.Module != "" {
				address = r.Module + "." + address
			}
			switch key := x.IndexKey.(type) {
			case nil:
			case json.Number:
				address += "[" + key.String() + "]"
			default:
				address += fmt.Sprintf("[%q]", fmt.Sprint(key))
			}
			record, err := resource(name, address, r.Type, x.Attributes)
			if err != nil {
				return nil, err
			}
			records = append(records, record)
		}
	}
	return records, nil
}

func showModule(name string, records []Record, m terraformModule, depth int) ([]Record, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: modules are nested deeper than %d", name, maxDepth)
	}
	for _, r := range m.Resources {
		if r.Mode != "managed" {
			continue
		}
		record, err := resource(name, r.Address, r.Type, r.Values)
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	for _, child := range m.Children {
		var err error
		if records, err = showModule(name, records, child, depth+1); err != nil {
			return nil, err
		}
	}
	return records, nil
}

func resource(name, address, kind string, values map[string]any) (Record, error) {
	r := Record{Place: name + ": " + address, Fields: map[string]string{}}
	if err := flatten(r.Fields, "", values, 0); err != nil {
		return r, fmt.Errorf("%s: %w", r.Place, err)
	}
	r.Fields[typeField], r.Fields[addressField] = kind, address
	return r, nil
}
