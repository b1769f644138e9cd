// Command libskprovider is the shared library that OpenSSH's programs load as a security key provider. It only translates between C
// and package skprovider, which is the key. Build it with skprovider.Build: cgo, tag skprovider, -buildmode=c-shared.
package main
