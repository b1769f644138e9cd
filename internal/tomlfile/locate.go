package tomlfile

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

type node struct {
	line int
	text bool // a string
	zone bool // a date or time without an offset
}

// locator walks a document's expressions and notes the line of each table, key and array element by its path.
type locator struct {
	data   []byte
	nodes  map[string]node
	counts map[string]int // of [[array]] tables so far, by path without the last index
	line   int            // of the byte at offset
	offset int
}

func locate(data []byte) (map[string]node, error) {
	var p unstable.Parser
	p.Reset(data)
	l := &locator{data: data, nodes: map[string]node{}, counts: map[string]int{}, line: 1}
	prefix := ""
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table:
			prefix = l.table(e, false)
		case unstable.ArrayTable:
			prefix = l.table(e, true)
		case unstable.KeyValue:
			l.keyValue(prefix, e)
		}
	}
	return l.nodes, p.Error()
}

// table notes a [table] or [[array]] header and returns the path of the keys that follow.
func (l *locator) table(e *unstable.Node, array bool) string {
	path, line := "", 1
	it := e.Key()
	for it.Next() {
		key := it.Node()
		line = l.at(key.Raw.Offset)
		path = join(path, string(key.Data))
		if array && it.IsLast() {
			n := l.counts[path]
			l.counts[path] = n + 1
			l.note(path, node{line: line})
			path = fmt.Sprintf("%s[%d]", path, n)
		} else if n := l.counts[path]; n > 0 {
			path = fmt.Sprintf("%s[%d]", path, n-1)
		}
	}
	if array { // tables inside a new element count from zero again
		for p := range l.counts {
			if strings.HasPrefix(p, path+".") {
				delete(l.counts, p)
			}
		}
	}
	l.note(path, node{line: line})
	return path
}

func (l *locator) keyValue(prefix string, e *unstable.Node) {
	path, line := prefix, 1
	it := e.Key()
	for it.Next() {
		line = l.at(it.Node().Raw.Offset)
		path = join(path, string(it.Node().Data))
		if !it.IsLast() {
			l.note(path, node{line: line})
		}
	}
	l.value(path, line, e.Value())
}

func (l *locator) value(path string, line int, v *unstable.Node) {
	l.note(path, node{line: line, text: v.Kind == unstable.String,
		zone: v.Kind == unstable.LocalDate || v.Kind == unstable.LocalTime || v.Kind == unstable.LocalDateTime})
	switch v.Kind {
	case unstable.InlineTable:
		it := v.Children()
		for it.Next() {
			if it.Node().Kind == unstable.KeyValue {
				l.keyValue(path, it.Node())
			}
		}
	case unstable.Array:
		it := v.Children()
		for i := 0; it.Next(); i++ {
			if it.Node().Kind == unstable.Comment {
				i--
				continue
			}
			at := line
			if r := it.Node().Raw; r.Length > 0 {
				at = l.at(r.Offset)
			}
			l.value(fmt.Sprintf("%s[%d]", path, i), at, it.Node())
		}
	}
}

func (l *locator) note(path string, n node) {
	if _, ok := l.nodes[path]; !ok {
		l.nodes[path] = n
	}
}

// at returns the line of a byte. Offsets mostly rise, so it counts on from the last one.
func (l *locator) at(offset uint32) int {
	to := min(int(offset), len(l.data))
	if to < l.offset {
		l.line, l.offset = 1, 0
	}
	l.line += bytes.Count(l.data[l.offset:to], []byte{'\n'})
	l.offset = to
	return l.line
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}
