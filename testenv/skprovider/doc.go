// Package skprovider is a FIDO2 security key in software that OpenSSH's own programs use: a shared library with OpenSSH's security
// key interface (sk_api), which ssh-keygen, ssh and ssh-agent load through ssh-sk-helper, and the state behind it. It asks for touch
// and PIN, counts, and attests its keys as a real one does, so that enrolment and login are tested with the real programs. It proves
// nothing about hardware and says so: the names of its library, of its certificates and of its files carry "software" and "TEST", and
// a policy accepts it only as a test issuer in a fleet with test = true.
//
// A key is a directory. Create makes it, the environment variable that Environment names leads the library to it, and whoever has it
// open may change at any time how it behaves: touch given, refused or asked of a Finger, PIN and tries, and flaws that no maker would
// sell. OpenSSH's programs hand their environment on to ssh-sk-helper; an ssh-agent hands on its own, not its client's.
//
// It does not speak CTAP and has no device file: the part between OpenSSH and a USB token, libfido2, is not there. What that part
// answers to a program, it answers the same: the codes, PIN required or not, blocked, no such key on this token.
//
// Files in order: settings.go, make.go, device.go (the directory), pin.go, touch.go, credential.go (key handles), authdata.go,
// enroll.go, sign.go, resident.go, build.go. The library is cmd/libskprovider.
//
// References: OpenSSH PROTOCOL.u2f and sk-api.h (OpenSSH 9.2: major version 10); CTAP 2.1, sections 6.1, 6.2, 6.5 and 12.1; WebAuthn
// level 2, sections 6.1, 6.5.1 and 8.2.
package skprovider
