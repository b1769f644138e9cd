package tomlfile

import (
	"bytes"
	"fmt"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Statement is a table's header, or a key with its value, where it stands in a file: for who changes one place and leaves every other byte.
type Statement struct {
	Path       string // "engineer[0].key[1]" of a header, "engineer[0].key[1].public" of a key
	Table      string // of a key: the path of the header above it, "" at the top; of a header: its own
	Header     bool
	Start, End int    // of its lines, the last line's end included
	Value      [2]int // of a key: from where to where its value stands
}

// Statements lists what a file says, in its order. Comments and blank lines are no statements; what stands inside of a value is none of its own.
func Statements(data []byte) ([]Statement, error) {
	var p unstable.Parser
	p.Reset(data)
	l := &locator{data: data, nodes: map[string]node{}, counts: map[string]int{}, line: 1}
	var list []Statement
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = l.table(e, e.Kind == unstable.ArrayTable)
			at := keyEnd(e)
			list = append(list, Statement{Path: table, Table: table, Header: true, Start: lineStart(data, at), End: lineEnd(data, at)})
		case unstable.KeyValue:
			path, it := table, e.Key()
			for it.Next() {
				path = join(path, string(it.Node().Data))
			}
			from, to := int(e.Raw.Offset), int(e.Raw.Offset+e.Raw.Length)
			equals := bytes.IndexByte(data[keyEnd(e):to], '=')
			if equals < 0 {
				return nil, fmt.Errorf("byte %d: a key without a value", from)
			}
			value := keyEnd(e) + equals + 1
			for value < to && (data[value] == ' ' || data[value] == '\t') {
				value++
			}
			list = append(list, Statement{Path: path, Table: table, Start: lineStart(data, from), End: lineEnd(data, max(from, to-1)), Value: [2]int{value, to}})
		}
	}
	return list, p.Error()
}

// keyEnd is the first byte after the last part of an expression's key.
func keyEnd(e *unstable.Node) int {
	end := 0
	for it := e.Key(); it.Next(); {
		end = int(it.Node().Raw.Offset + it.Node().Raw.Length)
	}
	return end
}

func lineStart(data []byte, at int) int { return bytes.LastIndexByte(data[:at], '\n') + 1 }

func lineEnd(data []byte, at int) int {
	if n := bytes.IndexByte(data[at:], '\n'); n >= 0 {
		return at + n + 1
	}
	return len(data)
}
