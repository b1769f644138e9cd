package simulate

// Text draws the result with letters.
func (r Result) Text() string { return "" }
