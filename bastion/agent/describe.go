package agent

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
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
	text, _ = quoted(text)
	return text
}

// quoted is that; whole is whether nothing had to be cut off.
func quoted(text string) (safe string, whole bool) {
	var b strings.Builder
	quote := text == ""
	for _, r := range text {
		part := string(r)
		switch {
		case r > unicode.MaxASCII || !unicode.IsPrint(r):
			part = fmt.Sprintf("\\u%04x", r)
			quote = true
		case r == '"' || r == '\\':
			part = `\` + part
			quote = true
		case r == ' ' || r == '(' || r == ')' || r == ',' || r == ';':
			quote = true
		}
		if b.Len()+len(part) > maxShown {
			return `"` + b.String() + `…"`, false
		}
		b.WriteString(part)
	}
	if quote {
		return `"` + b.String() + `"`, true
	}
	return b.String(), true
}

// showable refuses a name that decides what is signed, and that a person would not be shown as it is: what cannot be read, or not to its end.
func showable(field, name string) *Refusal {
	_, whole := quoted(name)
	if whole && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return nil
	}
	return refuse(ReasonUnknownData, "%s: %s cannot be shown as it is: not printable, or longer than %d characters", field, shown(name), maxShown)
}
