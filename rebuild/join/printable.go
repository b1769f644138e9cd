package join

// Printable makes what a machine sent fit for an operator's terminal: one line of ASCII without control characters, at most n bytes.
// A server that was taken over, or a thief with its ticket, chooses these texts.
func Printable(s string, n int) string {
	b := []byte(s[:min(len(s), n)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = ' '
		}
	}
	return string(b)
}
