package importer

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mayfly/internal/hint"
	"mayfly/inventory"
)

// Mapping is how records become servers.
type Mapping struct {
	Where  map[string]string // only records whose field has this value, or this element of a list with commas
	Fields map[string]string // key of [[server]] → field; a key that is not here has the field of its own name
	Set    map[string]string // key → value for every server that has none of its own
	Prefix int               // length of the network of an address that comes without; 0: such an address is an error
	Label  bool              // of a name with a domain, the first label
}

// usual are the fields that a key is looked for under when nothing is said.
var usual = map[string][]string{
	"name":    {"name", hostField, "tags.Name"},
	"address": {"address", "ansible_host"},
}

// Difference is a server that fleet.toml has already, otherwise.
type Difference struct {
	Server string `json:"server"`
	Key    string `json:"key"`
	Fleet  string `json:"fleet"`
	Source string `json:"source"`
	Place  string `json:"place"`
}

// Result is what an import would add to a fleet.toml.
type Result struct {
	TOML    string       `json:"toml"` // regions, racks and servers to append; "" if there is nothing new
	New     []string     `json:"new"`
	Known   []string     `json:"known"`   // servers that fleet.toml has already
	Differs []Difference `json:"differs"` // what is otherwise there: it is left as it is
	Left    int          `json:"left"`    // records that Where leaves out
}

// secretKey is the one key whose value may be a secret.
const secretKey = "power.password"

// candidate is a record as keys of [[server]].
type candidate struct {
	place  string
	keys   map[string]string // key → TOML literal
	region string
}

// Merge says what records add to a fleet. name and data are the fleet.toml that they join, which may be empty of servers; the sum is checked
// as inventory.Parse does, and an objection to something new names the place of its record.
func Merge(name string, data []byte, records []Record, m Mapping) (Result, error) {
	for _, keys := range []map[string]string{m.Fields, m.Set} {
		for k := range keys {
			if _, ok := withRegion()[k]; !ok {
				return Result{}, hint.New(fmt.Errorf("[[server]] has no key %q", k), "it is one of %s", strings.Join(Keys(), ", "))
			}
		}
	}
	present, err := read(name, data)
	if err != nil {
		return Result{}, err
	}
	result := Result{New: []string{}, Known: []string{}, Differs: []Difference{}}
	var fresh []candidate
	seen := map[string]string{}
	for _, r := range records {
		if !m.wants(r) {
			result.Left++
			continue
		}
		c, err := m.candidate(r)
		if err != nil {
			return Result{}, err
		}
		if have, ok := present.racks[unquoted(c.keys["rack"])]; ok && c.region != "" && have != c.region {
			return Result{}, hint.New(fmt.Errorf("%s: rack %q is in region %q, not in %q", c.place, unquoted(c.keys["rack"]), have, c.region), "a rack is in one region: see which of the two is wrong")
		}
		label := unquoted(c.keys["name"])
		if first, twice := seen[label]; twice {
			return Result{}, fmt.Errorf("%s: server %q is at %s as well", c.place, label, first)
		}
		seen[label] = c.place
		if have, ok := present.servers[label]; ok {
			result.Known = append(result.Known, label)
			result.Differs = append(result.Differs, differences(label, have, c)...)
			continue
		}
		result.New = append(result.New, label)
		fresh = append(fresh, c)
	}
	if len(seen) == 0 {
		return Result{}, hint.New(fmt.Errorf("none of %d machines is asked for", len(records)), "see --where")
	}
	text, places, err := present.write(fresh)
	if err != nil || text == "" {
		return result, err
	}
	result.TOML = text
	whole := slices.Concat(bytes.TrimRight(data, "\n"), []byte("\n"), []byte(text))
	if _, err := inventory.Parse(name, whole); err != nil {
		return Result{}, replaced(err, name, 1+bytes.Count(bytes.TrimRight(data, "\n"), []byte("\n")), places)
	}
	return result, nil
}

func (m Mapping) wants(r Record) bool {
	for field, value := range m.Where {
		if have := r.Fields[field]; have != value && !slices.Contains(strings.Split(have, ","), value) {
			return false
		}
	}
	return true
}

// candidate applies the mapping to one record.
func (m Mapping) candidate(r Record) (candidate, error) {
	c := candidate{place: r.Place, keys: map[string]string{}}
	for key, kind := range withRegion() {
		value, ok := m.value(r, key, kind)
		if !ok {
			if field, said := m.Fields[key]; said && m.Set[key] == "" {
				return c, hint.New(fmt.Errorf("%s: it has no field %q for %s", r.Place, field, key), "its fields: %s", someOf(r.Fields))
			}
			continue
		}
		switch key {
		case "name":
			if m.Label {
				value, _, _ = strings.Cut(value, ".")
			}
			value = strings.ToLower(value)
		case "address":
			if !strings.Contains(value, "/") {
				if m.Prefix == 0 {
					return c, hint.New(fmt.Errorf("%s: address %s has no prefix length", r.Place, value), "--prefix says which length such addresses have")
				}
				value += "/" + strconv.Itoa(m.Prefix)
			}
		case regionKey:
			c.region = value
			continue
		}
		if key == secretKey && !strings.HasPrefix(value, "sealed:") {
			return c, hint.New(fmt.Errorf("%s: %s is a password itself, which no file of the fleet holds", r.Place, key), "`fleetctl secret seal NAME` keeps it; map another field, or --set %s=sealed:NAME", key)
		}
		toml, ok := literal(kind, value)
		if !ok {
			return c, fmt.Errorf("%s: %s is %q, which is no %s", r.Place, key, value, []string{"text", "integer", "boolean", "list"}[kind])
		}
		c.keys[key] = toml
	}
	if c.keys["name"] == "" {
		return c, hint.New(fmt.Errorf("%s: the machine has no name", r.Place), "--field name=FIELD says where it is; its fields: %s", someOf(r.Fields))
	}
	return c, nil
}

// value finds the text of a key: its field, one of the usual, or what is set for all.
func (m Mapping) value(r Record, key string, k kind) (string, bool) {
	fields := usual[key]
	if fields == nil {
		fields = []string{key}
	}
	if f, ok := m.Fields[key]; ok {
		fields = []string{f}
	}
	for _, f := range fields {
		if v := r.Fields[f]; v != "" {
			return v, true
		}
		if k == list {
			var elements []string
			for i := 0; r.Fields[fmt.Sprintf("%s.%d", f, i)] != ""; i++ {
				elements = append(elements, r.Fields[fmt.Sprintf("%s.%d", f, i)])
			}
			if len(elements) > 0 {
				return strings.Join(elements, ","), true
			}
		}
	}
	v, ok := m.Set[key]
	return v, ok && v != ""
}

func someOf(fields map[string]string) string {
	const most = 20
	names := slices.Sorted(maps.Keys(fields))
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// unquoted is the value of a TOML basic string that quote wrote, where names are concerned.
func unquoted(s string) string { return strings.Trim(s, `"`) }

// differences are the keys that both have, with other values.
func differences(label string, have map[string]string, c candidate) []Difference {
	var all []Difference
	for _, key := range slices.Sorted(maps.Keys(c.keys)) {
		if old := have[key]; old != c.keys[key] {
			if old == "" {
				old = "(left out)"
			}
			all = append(all, Difference{Server: label, Key: key, Fleet: old, Source: c.keys[key], Place: c.place})
		}
	}
	return all
}

// replaced gives an objection to a line that is new the place of what the line came from.
func replaced(err error, name string, lines int, places []string) error {
	m := regexp.MustCompile(`^` + regexp.QuoteMeta(name) + `:(\d+): `).FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	line, convErr := strconv.Atoi(m[1])
	at := line - lines - 1
	if convErr != nil || at < 0 || at >= len(places) {
		return err
	}
	moved := fmt.Errorf("%s: %s", places[at], strings.TrimPrefix(err.Error(), m[0]))
	if mend := hint.Of(err); mend != "" {
		return hint.New(moved, "%s", mend)
	}
	return moved
}
