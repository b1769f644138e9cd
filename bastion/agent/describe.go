package agent

import (
	"fmt"
	"strings"
	"unicode"
)

// namespaces are what SSH signatures are for, in words: our own (docs/design.md, part 6) and those of programs that people know.
var namespaces = map[string]string{
	"mayfly-policy":    "sign a mayfly-policy bundle",
	"mayfly-release":   "sign a mayfly-release statement",
	"mayfly-request":   "sign a mayfly-request, an operator's order to the fleet",
	"mayfly-trust":     "sign a mayfly-trust policy",
	"mayfly-statement": "sign a mayfly-statement (approval, break-glass)",
	"mayfly-enrolment": "sign a mayfly-enrolment challenge",
	"git":              "sign a git commit or tag",
	"file":             "sign a file",
	"email":            "sign an e-mail",
}

// what says what is to be signed, for whom, in one line that a client has no way to break or to disguise.
func (p Purpose) what() string {
	switch {
	case p.Login != nil:
		return "log in as " + shown(p.Login.User) + p.where()
	case p.File != nil:
		if text := namespaces[p.File.Namespace]; text != "" {
			return text
		}
		return "sign a file for the purpose " + shown(p.File.Namespace)
	}
	return "sign data that is neither a login nor a file"
}

func (p Purpose) where() string {
	switch {
	case p.Host.Key == nil:
		return "; where is not known (the client does not say)"
	case !p.Bound:
		return " at " + p.Host.String() + ", the client says"
	}
	return " at " + p.Host.String()
}

// String is what the person is shown.
func (p Purpose) String() string {
	if p.Through.Key != nil {
		return p.what() + ", asked for by " + p.Through.String() + ", which this agent is forwarded to"
	}
	return p.what()
}

// shown makes text that others chose safe for a prompt: printable ASCII without what could pass for our own words' frame, of bounded length.
func shown(text string) string {
	var b strings.Builder
	quoted := text == ""
	n := 0
	for _, r := range text {
		if n++; n > maxShown {
			b.WriteString("…")
			break
		}
		switch {
		case r > unicode.MaxASCII || !unicode.IsPrint(r):
			fmt.Fprintf(&b, "\\u%04x", r)
			quoted = true
		case r == ' ' || r == '"' || r == '\\' || r == '(' || r == ')' || r == ',' || r == ';':
			if r == '"' || r == '\\' {
				b.WriteByte('\\')
			}
			b.WriteRune(r)
			quoted = true
		default:
			b.WriteRune(r)
		}
	}
	if quoted {
		return `"` + b.String() + `"`
	}
	return b.String()
}
