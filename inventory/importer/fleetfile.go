package importer

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// present is what a fleet.toml has already.
type present struct {
	servers map[string]map[string]string // name → key → TOML literal
	racks   map[string]string            // name → region
	regions map[string]bool
}

// read looks into a fleet.toml, which inventory.Parse may refuse as it is: one without servers, for example.
func read(name string, data []byte) (present, error) {
	var f struct {
		Regions []struct {
			Name string `toml:"name"`
		} `toml:"region"`
		Racks []struct {
			Name   string `toml:"name"`
			Region string `toml:"region"`
		} `toml:"rack"`
		Servers []map[string]any `toml:"server"`
	}
	p := present{servers: map[string]map[string]string{}, racks: map[string]string{}, regions: map[string]bool{}}
	if err := toml.Unmarshal(data, &f); err != nil {
		return p, fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "toml: "))
	}
	for _, r := range f.Regions {
		p.regions[r.Name] = true
	}
	for _, r := range f.Racks {
		p.racks[r.Name] = r.Region
	}
	for _, s := range f.Servers {
		keys := map[string]string{}
		literals(keys, "", s)
		p.servers[fmt.Sprint(s["name"])] = keys
	}
	return p, nil
}

// literals flattens a table into keys of [[server]].
func literals(to map[string]string, prefix string, table map[string]any) {
	for key, value := range table {
		switch v := value.(type) {
		case map[string]any:
			literals(to, prefix+key+".", v)
		case []any:
			var elements []string
			for _, e := range v {
				elements = append(elements, quote(fmt.Sprint(e)))
			}
			to[prefix+key] = "[" + strings.Join(elements, ", ") + "]"
		case string:
			to[prefix+key] = quote(v)
		default:
			to[prefix+key] = fmt.Sprint(v)
		}
	}
}

// first are the keys that a table begins with; the rest follow by name.
var first = []string{"name", "rack", "role", "address", "capacity", "tunnel"}

// write is the TOML of new regions, racks and servers, and for each of its lines the place of the record behind it.
func (p present) write(fresh []candidate) (text string, places []string, err error) {
	var b strings.Builder
	line := func(place, format string, args ...any) {
		fmt.Fprintf(&b, format+"\n", args...)
		places = append(places, place)
	}
	for _, c := range fresh {
		rack := unquoted(c.keys["rack"])
		if region, ok := p.racks[rack]; rack == "" || ok && (region == c.region || c.region == "") {
			continue
		} else if ok {
			return "", nil, fmt.Errorf("%s: rack %q is in region %q, not in %q", c.place, rack, region, c.region)
		}
		if c.region == "" {
			continue // inventory.Parse says that the rack does not exist
		}
		if !p.regions[c.region] {
			p.regions[c.region] = true
			line(c.place, "\n[[region]]")
			places = append(places, c.place) // the empty line before it
			line(c.place, "name = %s", quote(c.region))
		}
		p.racks[rack] = c.region
		line(c.place, "\n[[rack]]")
		places = append(places, c.place)
		line(c.place, "name = %s", quote(rack))
		line(c.place, "region = %s", quote(c.region))
	}
	for _, c := range fresh {
		line(c.place, "\n[[server]]")
		places = append(places, c.place)
		tables := map[string][]string{}
		keys := slices.SortedFunc(maps.Keys(c.keys), func(a, b string) int {
			return 1000*(rank(a)-rank(b)) + strings.Compare(a, b)
		})
		for _, key := range keys {
			if table, inner, ok := strings.Cut(key, "."); ok {
				tables[table] = append(tables[table], inner+" = "+c.keys[key])
				continue
			}
			line(c.place, "%s = %s", key, c.keys[key])
		}
		for _, table := range slices.Sorted(maps.Keys(tables)) {
			line(c.place, "%s = { %s }", table, strings.Join(tables[table], ", "))
		}
	}
	return b.String(), places, nil
}

func rank(key string) int {
	if i := slices.Index(first, key); i >= 0 {
		return i
	}
	return len(first)
}
