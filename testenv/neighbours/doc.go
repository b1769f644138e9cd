// Package neighbours holds what a controller and a server of the release before this one said to each other, byte for byte, in testdata: the
// present programs have to take it, and to say the same in turn. Both sides read strictly and refuse a field that they do not know, so a
// field that is new in a message is one that a server of the release before refuses: it takes another kind of message, or a protocol's next
// number, offered beside the present one for a release.
//
// It is not linked into anything. Read neighbours_test.go.
package neighbours
