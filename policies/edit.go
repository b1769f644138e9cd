package policies

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"mayfly/internal/hint"
	"mayfly/internal/tomlfile"
)

// What policy.toml is changed in by programs: an enrolled key comes, goes, and the version rises. Each function here returns the file with
// one place changed and every other byte as it was, comments included, and only if what it then says is exactly what it said before with that
// one change. What such a policy may be is Check's to say.

// errShape is what comes of a file that says the right things in a form that is not edited here.
var errShape = errors.New("it is written in a form that this program does not change")

const byHand = "write tables as [[engineer]] with [[engineer.key]] below, and [hardware] with revoked = [\"SHA256:…\"], or make the change by hand"

// Decode reads policy.toml strictly, and does not check it: for who is about to change it.
func Decode(name string, data []byte) (Policy, error) {
	p, _, err := decode(name, data)
	return p, err
}

// AddKey enrols a key of an engineer or a break-glass identity in policy.toml.
func AddKey(name string, data []byte, owner string, k Key) ([]byte, error) {
	return edit(name, data, func(p *Policy, list []tomlfile.Statement) (splice, error) {
		table, keys, err := p.holderOf(owner)
		if err != nil {
			return splice{}, err
		}
		*keys = append(slices.Clone(*keys), k)
		at := -1
		for _, s := range list {
			if s.Table == table || strings.HasPrefix(s.Table, table+".key[") {
				at = s.End
			}
		}
		if at < 0 {
			return splice{}, errShape
		}
		array, _, _ := strings.Cut(table, "[")
		block := newline(data) + "[[" + array + ".key]]" + newline(data) + keyText(k, newline(data))
		if !bytes.HasSuffix(data[:at], []byte("\n")) {
			block = newline(data) + block
		}
		return splice{at, at, block}, nil
	})
}

// RemoveKey takes the enrolled key with this public half, and its table, out of policy.toml.
func RemoveKey(name string, data []byte, public string) ([]byte, error) {
	return edit(name, data, func(p *Policy, list []tomlfile.Statement) (splice, error) {
		table := ""
		take := func(path string, keys *[]Key) {
			i := slices.IndexFunc(*keys, func(k Key) bool { return k.Public == public })
			if i < 0 || table != "" {
				return
			}
			table = fmt.Sprintf("%s.key[%d]", path, i)
			if *keys = slices.Delete(slices.Clone(*keys), i, i+1); len(*keys) == 0 {
				*keys = nil
			}
		}
		for i := range p.Engineers {
			take(at("engineer", i), &p.Engineers[i].Keys)
		}
		for i := range p.BreakGlass {
			take(at("break_glass", i), &p.BreakGlass[i].Keys)
		}
		if table == "" {
			return splice{}, hint.New(errors.New("nobody has that key"), "fleetctl key list shows the keys")
		}
		cut := splice{-1, -1, ""}
		for _, s := range list {
			if s.Table != table {
				continue
			}
			if s.Header {
				cut.from = s.Start
			}
			cut.to = s.End
		}
		if cut.from < 0 {
			return splice{}, errShape
		}
		// Of the blank lines before and after it one goes as well.
		if end := []byte(newline(data)); bytes.HasSuffix(data[:cut.from], append([]byte("\n"), end...)) && (cut.to == len(data) || bytes.HasPrefix(data[cut.to:], end)) {
			cut.from -= len(end)
		}
		return cut, nil
	})
}

// RevokeFingerprint puts a fingerprint into hardware.revoked of policy.toml.
func RevokeFingerprint(name string, data []byte, print string) ([]byte, error) {
	return edit(name, data, func(p *Policy, list []tomlfile.Statement) (splice, error) {
		end := newline(data)
		if slices.Contains(p.Hardware.Revoked, print) {
			return splice{}, hint.New(fmt.Errorf("%s is in hardware.revoked already", print), "fleetctl key list shows the keys")
		}
		for _, s := range list {
			if s.Path != "hardware.revoked" || s.Header {
				continue
			}
			text := quote(print)
			switch after := s.Value[0] + 1; {
			case data[s.Value[0]] != '[':
				return splice{}, errShape
			case after < len(data) && (data[after] == '\n' || data[after] == '\r'):
				text = end + "  " + text + ","
			default:
				text += ", "
			}
			p.Hardware.Revoked = slices.Insert(slices.Clone(p.Hardware.Revoked), 0, print)
			return splice{s.Value[0] + 1, s.Value[0] + 1, text}, nil
		}
		p.Hardware.Revoked = []string{print}
		line, in, before := "revoked = ["+quote(print)+"]"+end, -1, -1
		for _, s := range list {
			switch {
			case s.Table == "hardware":
				in = s.End
			case before < 0 && s.Header && strings.HasPrefix(s.Table, "hardware."):
				before = s.Start
			}
		}
		switch {
		case in >= 0 && data[in-1] != '\n': // the file's last line
			return splice{in, in, end + line}, nil
		case in >= 0:
			return splice{in, in, line}, nil
		case before >= 0:
			return splice{before, before, "[hardware]" + end + line + end}, nil
		case len(data) > 0 && data[len(data)-1] != '\n':
			line = end + end + "[hardware]" + end + line
		default:
			line = end + "[hardware]" + end + line
		}
		return splice{len(data), len(data), line}, nil
	})
}

// SetVersion writes another version into policy.toml.
func SetVersion(name string, data []byte, version uint64) ([]byte, error) {
	return edit(name, data, func(p *Policy, list []tomlfile.Statement) (splice, error) {
		for _, s := range list {
			if s.Path == "version" && !s.Header {
				p.Version = version
				return splice{s.Value[0], s.Value[1], fmt.Sprint(version)}, nil
			}
		}
		return splice{}, hint.New(errors.New("there is no version"), "start with version = 1")
	})
}

// splice is text in place of some bytes.
type splice struct {
	from, to int
	text     string
}

// edit makes a change of the file and the same change of what it says, and compares.
func edit(name string, data []byte, change func(*Policy, []tomlfile.Statement) (splice, error)) ([]byte, error) {
	want, err := Decode(name, data)
	if err != nil {
		return nil, err
	}
	want.Engineers, want.BreakGlass = slices.Clone(want.Engineers), slices.Clone(want.BreakGlass)
	list, err := tomlfile.Statements(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s, err := change(&want, list)
	if errors.Is(err, errShape) {
		err = hint.New(err, "%s", byHand)
	}
	if err != nil {
		return nil, fmt.Errorf("changing %s: %w", name, err)
	}
	changed := slices.Concat(data[:s.from], []byte(s.text), data[s.to:])
	got, err := Decode(name, changed)
	if err != nil || !reflect.DeepEqual(got, want) {
		return nil, hint.New(fmt.Errorf("changing %s: %w", name, errShape), "%s", byHand)
	}
	return changed, nil
}

// holderOf finds whose keys these are, and the path of the table that they stand in.
func (p *Policy) holderOf(owner string) (table string, keys *[]Key, err error) {
	for i := range p.Engineers {
		if p.Engineers[i].Name == owner {
			return at("engineer", i), &p.Engineers[i].Keys, nil
		}
	}
	for i := range p.BreakGlass {
		if p.BreakGlass[i].Name == owner {
			return at("break_glass", i), &p.BreakGlass[i].Keys, nil
		}
	}
	return "", nil, hint.New(fmt.Errorf("nobody is called %q", owner), "add [[engineer]] with name = %q first, or correct the name", owner)
}

// keyText is what stands in a key's table.
func keyText(k Key, end string) string {
	var b strings.Builder
	line := func(key, value string) { b.WriteString(key + " = " + value + end) }
	line("public", quote(k.Public))
	line("evidence", quote(k.Evidence))
	if k.Challenge != "" {
		line("challenge", quote(k.Challenge))
	}
	if len(k.Attestation) > 0 {
		list := "[" + end
		for _, a := range k.Attestation {
			list += "  " + quote(a) + "," + end
		}
		line("attestation", list+"]")
	}
	if k.Signature != "" {
		line("signature", quote(k.Signature))
	}
	return b.String()
}

// quote writes a TOML basic string of printable text; what is not printable comes out as another text, which edit then refuses.
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(text) + `"`
}

// newline is how the file ends its lines.
func newline(data []byte) string {
	if i := bytes.IndexByte(data, '\n'); i > 0 && data[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}
