package importer

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"mayfly/internal/hint"
)

// hostField and groupsField are what an Ansible host has beside its variables.
const (
	hostField   = "inventory_hostname"
	groupsField = "groups" // names, separated by commas; "all" and "ungrouped" left out
)

// group of an Ansible inventory. Variables of hosts stand over those of groups, and those of a child over its parents'.
type group struct {
	vars     map[string]any
	children []string
	hosts    []string
}

// book is an Ansible inventory as it was read.
type book struct {
	groups map[string]*group
	hosts  map[string]map[string]any // host's own variables
	places map[string]string
	order  []string // of hosts
}

func newBook() *book {
	return &book{groups: map[string]*group{}, hosts: map[string]map[string]any{}, places: map[string]string{}}
}

func (v *book) group(name string) *group {
	if v.groups[name] == nil {
		v.groups[name] = &group{vars: map[string]any{}}
	}
	return v.groups[name]
}

func (v *book) host(name, place string) map[string]any {
	if v.hosts[name] == nil {
		v.hosts[name] = map[string]any{}
		v.places[name] = place
		v.order = append(v.order, name)
	}
	return v.hosts[name]
}

// parseAnsible tells the three forms apart by how they begin: `ansible-inventory --list` is a JSON object, YAML has "all:" or a group with a
// colon, and INI the rest.
func parseAnsible(name string, data []byte) ([]Record, error) {
	trimmed := bytes.TrimSpace(data)
	var v *book
	var err error
	switch {
	case bytes.HasPrefix(trimmed, []byte("{")):
		v, err = ansibleList(name, data)
	case isYAML(trimmed):
		v, err = ansibleYAML(name, data)
	default:
		v, err = ansibleINI(name, data)
	}
	if err != nil {
		return nil, err
	}
	return v.records(name)
}

// isYAML reports whether the first line that says something is a key of a mapping, or the beginning of a document.
func isYAML(data []byte) bool {
	for line := range bytes.Lines(data) {
		text := strings.TrimRight(string(line), " \t\r\n")
		if text == "" || text[0] == '#' {
			continue
		}
		return text == "---" || text[0] != '[' && strings.HasSuffix(text, ":")
	}
	return false
}

// ansibleList reads what `ansible-inventory --list` prints.
func ansibleList(name string, data []byte) (*book, error) {
	var all map[string]any
	if err := decodeJSON(name, data, &all); err != nil {
		return nil, err
	}
	v := newBook()
	meta, _ := all["_meta"].(map[string]any)
	vars, _ := meta["hostvars"].(map[string]any)
	for _, g := range slices.Sorted(maps.Keys(all)) {
		if g == "_meta" {
			continue
		}
		o, ok := all[g].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: group %q is no object", name, g)
		}
		to := v.group(g)
		for _, list := range []struct {
			key string
			to  *[]string
		}{{"hosts", &to.hosts}, {"children", &to.children}} {
			elements, ok := o[list.key].([]any)
			if o[list.key] != nil && !ok {
				return nil, fmt.Errorf("%s: %s of group %q are no list", name, list.key, g)
			}
			for _, x := range elements {
				s, ok := x.(string)
				if !ok {
					return nil, fmt.Errorf("%s: group %q: %v is no name", name, g, x)
				}
				*list.to = append(*list.to, s)
			}
		}
		if own, ok := o["vars"].(map[string]any); ok {
			to.vars = own
		}
		for _, h := range to.hosts {
			v.host(h, name+": "+h)
		}
	}
	for _, h := range slices.Sorted(maps.Keys(vars)) {
		own, ok := vars[h].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: variables of host %q are no object", name, h)
		}
		maps.Copy(v.host(h, name+": "+h), own)
	}
	return v, nil
}

// yamlGroup is a group of a YAML inventory.
type yamlGroup struct {
	Hosts    yaml.Node            `yaml:"hosts"`
	Vars     map[string]any       `yaml:"vars"`
	Children map[string]yaml.Node `yaml:"children"`
}

func ansibleYAML(name string, data []byte) (*book, error) {
	var top map[string]yaml.Node
	if err := yaml.Unmarshal(data, &top); err != nil {
		return nil, hint.New(fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: ")), "vaulted values and includes are resolved by `ansible-inventory --list`, whose output is read as well")
	}
	v := newBook()
	for _, g := range slices.Sorted(maps.Keys(top)) {
		node := top[g]
		if err := v.yamlGroup(name, g, &node, 0); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (v *book) yamlGroup(name, g string, node *yaml.Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s:%d: groups are nested deeper than %d", name, node.Line, maxDepth)
	}
	to := v.group(g)
	if node.Tag == "!!null" {
		return nil
	}
	var y yamlGroup
	if err := node.Decode(&y); err != nil {
		return fmt.Errorf("%s:%d: group %q: %s", name, node.Line, g, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	maps.Copy(to.vars, y.Vars)
	switch y.Hosts.Kind {
	case 0, yaml.ScalarNode: // none
	case yaml.MappingNode:
		for i := 0; i+1 < len(y.Hosts.Content); i += 2 {
			key, value := y.Hosts.Content[i], y.Hosts.Content[i+1]
			names, err := expand(key.Value)
			if err != nil {
				return fmt.Errorf("%s:%d: %w", name, key.Line, err)
			}
			own := map[string]any{}
			if value.Tag != "!!null" {
				if err := value.Decode(&own); err != nil {
					return fmt.Errorf("%s:%d: host %q: %s", name, key.Line, key.Value, strings.TrimPrefix(err.Error(), "yaml: "))
				}
			}
			for _, h := range names {
				if len(v.order) >= maxRecords {
					return fmt.Errorf("%s:%d: more than %d hosts", name, key.Line, maxRecords)
				}
				to.hosts = append(to.hosts, h)
				maps.Copy(v.host(h, fmt.Sprintf("%s:%d", name, key.Line)), own)
			}
		}
	default:
		return fmt.Errorf("%s:%d: hosts of group %q are no mapping", name, y.Hosts.Line, g)
	}
	for _, child := range slices.Sorted(maps.Keys(y.Children)) {
		to.children = append(to.children, child)
		inner := y.Children[child]
		if err := v.yamlGroup(name, child, &inner, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// records gives each host what it inherits.
func (v *book) records(name string) ([]Record, error) {
	depth := map[string]int{}
	var walk func(g string, d int, path []string) error
	walk = func(g string, d int, path []string) error {
		if slices.Contains(path, g) {
			return fmt.Errorf("%s: group %q is inside itself (%s)", name, g, strings.Join(append(path, g), " > "))
		}
		if d > maxDepth {
			return fmt.Errorf("%s: groups are nested deeper than %d", name, maxDepth)
		}
		if seen, ok := depth[g]; ok && seen >= d {
			return nil
		}
		depth[g] = d
		for _, child := range v.group(g).children {
			if err := walk(child, d+1, append(slices.Clone(path), g)); err != nil {
				return err
			}
		}
		return nil
	}
	for _, g := range slices.Sorted(maps.Keys(v.groups)) {
		d := 1
		if g == "all" {
			d = 0
		}
		if err := walk(g, d, nil); err != nil {
			return nil, err
		}
	}
	// From the outermost to the innermost; groups of one depth by name, as Ansible merges them.
	order := slices.SortedFunc(maps.Keys(v.groups), func(a, b string) int {
		if depth[a] != depth[b] {
			return depth[a] - depth[b]
		}
		return strings.Compare(a, b)
	})
	members := map[string]map[string]bool{} // host → groups, with those that hold its groups
	var belongs func(g string, hosts map[string]bool)
	belongs = func(g string, hosts map[string]bool) {
		for _, h := range v.groups[g].hosts {
			hosts[h] = true
		}
		for _, child := range v.groups[g].children {
			belongs(child, hosts)
		}
	}
	for g := range v.groups {
		hosts := map[string]bool{}
		belongs(g, hosts)
		for h := range hosts {
			if members[h] == nil {
				members[h] = map[string]bool{}
			}
			members[h][g] = true
		}
	}
	var records []Record
	for _, h := range v.order {
		vars, in := map[string]any{}, []string{}
		for _, g := range order {
			if !members[h][g] && g != "all" {
				continue
			}
			maps.Copy(vars, v.groups[g].vars)
			if g != "all" && g != "ungrouped" {
				in = append(in, g)
			}
		}
		maps.Copy(vars, v.hosts[h])
		r := Record{Place: v.places[h], Fields: map[string]string{}}
		if err := flatten(r.Fields, "", vars, 0); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Place, err)
		}
		slices.Sort(in)
		r.Fields[hostField], r.Fields[groupsField] = h, strings.Join(in, ",")
		records = append(records, r)
	}
	return records, nil
}
