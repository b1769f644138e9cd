package image

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of an explanation.
const (
	maxDetails  = 40
	maxText     = 256 << 10 // of what is compared line by line
	maxLines    = 4000
	maxLineText = 200
)

// explain says how two contents differ: Go programs by what they were built from, other ELF files by section, text by line, all else by byte.
func explain(a, b []byte) []string {
	out := explainGo(a, b)
	if isELF(&node{data: a}) && isELF(&node{data: b}) {
		out = append(out, explainELF(a, b)...)
	} else if isText(a) && isText(b) {
		out = append(out, explainText(a, b)...)
	}
	if len(out) == 0 {
		return []string{differingBytes(a, b)}
	}
	if len(out) > maxDetails {
		more := len(out) - maxDetails
		out = append(out[:maxDetails], fmt.Sprintf("and %d more", more))
	}
	return out
}

// differingBytes counts.
func differingBytes(a, b []byte) string {
	n := 0
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			n++
		}
	}
	text := fmt.Sprintf("differs from byte %d on, in %d of %d bytes", firstDifference(a, b), n, min(len(a), len(b)))
	if d := len(b) - len(a); d != 0 {
		text += fmt.Sprintf(", %+d at the end", d)
	}
	return text
}

// explainGo compares what Go wrote into two programs.
func explainGo(a, b []byte) []string {
	old, err := buildFacts(a)
	if err != nil {
		return nil
	}
	next, err := buildFacts(b)
	if err != nil {
		return nil
	}
	names := maps.Clone(old)
	maps.Copy(names, next)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch was, is := old[name], next[name]; {
		case was == is:
		case was == "":
			out = append(out, fmt.Sprintf("%s: + %s", name, is))
		case is == "":
			out = append(out, fmt.Sprintf("%s: - %s", name, was))
		default:
			out = append(out, fmt.Sprintf("%s: %s -> %s", name, was, is))
		}
	}
	if len(out) == 0 {
		out = append(out, "Go program: the same toolchain, modules and settings; other sources of ours")
	}
	return out
}

// buildFacts are a Go program's build information by name.
func buildFacts(data []byte) (map[string]string, error) {
	info, err := buildinfo.Read(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	out := map[string]string{"go": info.GoVersion, "main package": info.Path, "main module": info.Main.Path + " " + info.Main.Version}
	for _, m := range info.Deps {
		out["module "+m.Path] = m.Version + " " + m.Sum
		if m.Replace != nil {
			out["module "+m.Path] += " replaced by " + m.Replace.Path + " " + m.Replace.Version
		}
	}
	for _, s := range info.Settings {
		out["setting "+s.Key] = s.Value
	}
	return out, nil
}

// explainELF compares sections by name.
func explainELF(a, b []byte) []string {
	old, err := elfSections(a)
	if err != nil {
		return []string{"cannot be read as ELF: " + err.Error()}
	}
	next, err := elfSections(b)
	if err != nil {
		return []string{"cannot be read as ELF: " + err.Error()}
	}
	names := maps.Clone(old)
	maps.Copy(names, next)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, had := old[name]
		is, has := next[name]
		switch {
		case !had:
			out = append(out, "section "+name+": added")
		case !has:
			out = append(out, "section "+name+": removed")
		case !bytes.Equal(was, is):
			out = append(out, fmt.Sprintf("section %s: %d -> %d bytes, %s", name, len(was), len(is), differingBytes(was, is)))
		}
	}
	if len(out) == 0 {
		out = append(out, "sections hold the same; "+differingBytes(a, b))
	}
	return out
}

func elfSections(data []byte) (map[string][]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	out, total := map[string][]byte{}, 0
	for i, s := range f.Sections {
		if s.Type == elf.SHT_NOBITS || s.Type == elf.SHT_NULL {
			continue
		}
		// As they lie in the file: what a section says of compression is not followed.
		if total += int(min(s.FileSize, uint64(len(data)))); s.Offset > uint64(len(data)) || s.FileSize > uint64(len(data))-s.Offset || total > 4*len(data) {
			return nil, fmt.Errorf("section %d leads out of the file", i)
		}
		name := s.Name
		if _, twice := out[name]; twice || name == "" {
			name = fmt.Sprintf("%s[%d]", name, i)
		}
		out[name] = data[s.Offset : s.Offset+s.FileSize]
	}
	return out, nil
}

func isText(data []byte) bool {
	return len(data) <= maxText && utf8.Valid(data) && bytes.IndexByte(data, 0) < 0
}

// explainText lists lines that went and came. Common beginnings and ends are left out; between them, the longest common sequence is kept
// where the texts are short enough for it.
func explainText(a, b []byte) []string {
	old, next := strings.SplitAfter(string(a), "\n"), strings.SplitAfter(string(b), "\n")
	for len(old) > 0 && len(next) > 0 && old[0] == next[0] {
		old, next = old[1:], next[1:]
	}
	for len(old) > 0 && len(next) > 0 && old[len(old)-1] == next[len(next)-1] {
		old, next = old[:len(old)-1], next[:len(next)-1]
	}
	var out []string
	line := func(mark, text string) {
		text = strings.TrimSuffix(text, "\n")
		if len(text) > maxLineText {
			text = strings.ToValidUTF8(text[:maxLineText], "") + "…"
		}
		out = append(out, mark+" "+text)
	}
	if len(old)*len(next) > maxLines*maxLines/4 {
		return []string{fmt.Sprintf("%d lines in place of %d", len(next), len(old))}
	}
	common := longestCommon(old, next)
	i, j := 0, 0
	for i < len(old) || j < len(next) {
		switch {
		case i < len(old) && j < len(next) && old[i] == next[j]:
			i, j = i+1, j+1
		case j >= len(next) || i < len(old) && common[i+1][j] >= common[i][j+1]:
			line("-", old[i])
			i++
		default:
			line("+", next[j])
			j++
		}
	}
	return out
}

// longestCommon counts common lines of what is left of both, for each pair of places.
func longestCommon(a, b []string) [][]uint16 {
	out := make([][]uint16, len(a)+1)
	for i := range out {
		out[i] = make([]uint16, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				out[i][j] = out[i+1][j+1] + 1
			} else {
				out[i][j] = max(out[i+1][j], out[i][j+1])
			}
		}
	}
	return out
}
