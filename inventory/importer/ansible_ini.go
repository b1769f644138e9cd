package importer

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"mayfly/internal/hint"
)

// ansibleINI reads an inventory of sections: [group], [group:vars], [group:children]. Values are taken as text, with their quotation
// marks taken off.
func ansibleINI(name string, data []byte) (*book, error) {
	v := newBook()
	section, kind, number := "ungrouped", "", 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimSpace(string(line))
		place := fmt.Sprintf("%s:%d", name, number)
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case text[0] == '[':
			title, rest, ok := strings.Cut(text[1:], "]")
			if rest = strings.TrimSpace(rest); !ok || rest != "" && rest[0] != '#' {
				return nil, fmt.Errorf("%s: a section is [NAME], [NAME:vars] or [NAME:children]", place)
			}
			section, kind, _ = strings.Cut(title, ":")
			if section == "" || kind != "" && kind != "vars" && kind != "children" {
				return nil, fmt.Errorf("%s: a section is [NAME], [NAME:vars] or [NAME:children], not [%s]", place, title)
			}
			v.group(section)
		case kind == "vars":
			key, value, ok := strings.Cut(text, "=")
			if key = strings.TrimSpace(key); !ok || key == "" {
				return nil, fmt.Errorf("%s: a variable is KEY=VALUE", place)
			}
			v.group(section).vars[key] = unquote(strings.TrimSpace(value))
		case kind == "children":
			child, _, _ := strings.Cut(text, "#")
			v.group(section).children = append(v.group(section).children, strings.TrimSpace(child))
			v.group(strings.TrimSpace(child))
		default:
			words, err := split(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", place, err)
			}
			hosts, err := expand(words[0])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", place, err)
			}
			if len(v.order)+len(hosts) > maxRecords {
				return nil, fmt.Errorf("%s: more than %d hosts", place, maxRecords)
			}
			for _, h := range hosts {
				own := v.host(h, place)
				v.group(section).hosts = append(v.group(section).hosts, h)
				for _, w := range words[1:] {
					key, value, ok := strings.Cut(w, "=")
					if !ok || key == "" {
						return nil, hint.New(fmt.Errorf("%s: %q after a host is no KEY=VALUE", place, w), "a value with spaces stands in quotation marks")
					}
					own[key] = unquote(value)
				}
			}
		}
	}
	return v, nil
}

// split cuts a host's line at spaces outside of quotation marks, and ends at a comment.
func split(text string) (words []string, err error) {
	var b strings.Builder
	var quote rune
	for _, c := range text {
		switch {
		case quote != 0:
			b.WriteRune(c)
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
			b.WriteRune(c)
		case c == '#' && b.Len() == 0 && len(words) > 0:
			return words, nil
		case c == ' ' || c == '\t':
			if b.Len() > 0 {
				words = append(words, b.String())
				b.Reset()
			}
		default:
			b.WriteRune(c)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quotation mark (%c) is not closed", quote)
	}
	if b.Len() > 0 {
		words = append(words, b.String())
	}
	return words, nil
}

func unquote(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}

// expand turns "se-[01:10].example.org" and "db-[a:c]" into names. Ranges include their ends; a third number is the step.
func expand(pattern string) ([]string, error) {
	before, rest, ok := strings.Cut(pattern, "[")
	if !ok {
		return []string{pattern}, nil
	}
	inside, after, ok := strings.Cut(rest, "]")
	if !ok {
		return nil, fmt.Errorf("%q: a range is not closed", pattern)
	}
	parts := strings.Split(inside, ":")
	step := 1
	if len(parts) == 3 {
		n, err := strconv.Atoi(parts[2])
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q: the range's step is %q", pattern, parts[2])
		}
		step, parts = n, parts[:2]
	}
	if len(parts) != 2 {
		return nil, fmt.Errorf("%q: a range is [FROM:TO] or [FROM:TO:STEP]", pattern)
	}
	var middle []string
	letter := func(s string) bool { return len(s) == 1 && (s[0] >= 'a' && s[0] <= 'z' || s[0] >= 'A' && s[0] <= 'Z') }
	if letter(parts[0]) && letter(parts[1]) {
		for c := int(parts[0][0]); c <= int(parts[1][0]); c += step {
			middle = append(middle, string(rune(c)))
		}
	} else {
		from, err1 := strconv.Atoi(parts[0])
		to, err2 := strconv.Atoi(parts[1])
		if err1 != nil || err2 != nil || from < 0 || to-from > maxRecords*step {
			return nil, fmt.Errorf("%q: the range is not one of numbers or letters", pattern)
		}
		width := 0
		if strings.HasPrefix(parts[0], "0") {
			width = len(parts[0])
		}
		for n := from; n <= to; n += step {
			middle = append(middle, fmt.Sprintf("%0*d", width, n))
		}
	}
	if len(middle) == 0 {
		return nil, fmt.Errorf("%q: the range is empty", pattern)
	}
	ends, err := expand(after)
	if err != nil {
		return nil, err
	}
	if len(middle)*len(ends) > maxRecords {
		return nil, fmt.Errorf("%q: more than %d hosts", pattern, maxRecords)
	}
	var names []string
	for _, m := range middle {
		for _, e := range ends {
			names = append(names, before+m+e)
		}
	}
	return names, nil
}
