package bastion

import (
	"reflect"
	"unsafe"

	"golang.org/x/crypto/ssh"
)

// drainLibrary takes what the SSH library has read of a connection and nobody waits for any more, until its reader has ended. The connection
// must be closed.
//
// The library's reader puts packets into a channel of sixteen. When it gives a connection up, before or after authentication, nobody takes
// them out any more: who sends a bad packet and many behind it has the reader wait for ever, and with it whoever closes or waits for the
// connection. For a stranger that would be memory without end, and for who is in a session without a closing record. The library has no
// call for it (v0.58.0), so this goes behind its types; TestPipelinedRefusalLeavesNothing and TestCVE2026_56855 tell if they change.
func drainLibrary(conn ssh.ConnMetadata) {
	packets, ok := libraryPackets(conn)
	if !ok {
		return
	}
	for range packets {
	}
}

// libraryPackets is the channel of a connection of the library, if it is where it was.
func libraryPackets(conn ssh.ConnMetadata) (<-chan []byte, bool) {
	if client, ok := conn.(*ssh.Client); ok {
		conn = client.Conn
	}
	if server, ok := conn.(*ssh.ServerConn); ok {
		conn = server.Conn
	}
	v := reflect.ValueOf(conn)
	for _, name := range []string{"transport", "incoming"} {
		if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
			return nil, false
		}
		if v = v.Elem().FieldByName(name); v.Kind() == reflect.Interface {
			v = v.Elem()
		}
	}
	if !v.IsValid() || v.Type() != reflect.TypeFor[chan []byte]() || !v.CanAddr() {
		return nil, false
	}
	return *(*chan []byte)(unsafe.Pointer(v.UnsafeAddr())), true
}
