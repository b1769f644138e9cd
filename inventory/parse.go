package inventory

import (
	"mayfly/internal/tomlfile"
)

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

// Server returns the server with this name.
func (f *Fleet) Server(name string) (Server, bool) {
	for _, s := range f.Servers {
		if s.Name == name {
			return s, true
		}
	}
	return Server{}, false
}

// Region returns the region with this name.
func (f *Fleet) Region(name string) (Region, bool) {
	for _, r := range f.Regions {
		if r.Name == name {
			return r, true
		}
	}
	return Region{}, false
}

// RegionOf returns the region of the server's rack, or "" if there is no such server.
func (f *Fleet) RegionOf(server string) string {
	s, ok := f.Server(server)
	if !ok {
		return ""
	}
	for _, r := range f.Racks {
		if r.Name == s.Rack {
			return r.Region
		}
	}
	return ""
}

// Capacity returns the sum of the region's servers, in Mbit/s.
func (f *Fleet) Capacity(region string) int {
	total := 0
	for _, s := range f.Servers {
		if f.RegionOf(s.Name) == region {
			total += s.Capacity
		}
	}
	return total
}

// FQDN returns the name in the server's certificates.
func (f *Fleet) FQDN(server string) string {
	return server + "." + f.Domain
}
