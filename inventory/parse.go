package inventory

import "mayfly/internal/tomlfile"

// Parse reads fleet.toml strictly. Errors begin with "NAME:LINE: " and carry a hint (internal/hint).
func Parse(name string, data []byte) (Fleet, error) {
	var f Fleet
	doc, err := tomlfile.Decode(name, data, &f)
	if err != nil {
		return Fleet{}, err
	}
	if err := Check(f); err != nil {
		return Fleet{}, doc.Place(err)
	}
	return f, nil
}
