package plan

// off are guards that a test has switched off, to see that it is missed. Nothing but a test of this package sets it.
var off string

func guardOff(name string) bool { return off == name }
