//go:build cgo && skprovider

package main

/*
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// Layouts of OpenSSH's security key interface, major version 10 (sk-api.h).

struct sk_enroll_response {
	uint8_t flags;
	uint8_t *public_key;
	size_t public_key_len;
	uint8_t *key_handle;
	size_t key_handle_len;
	uint8_t *signature;
	size_t signature_len;
	uint8_t *attestation_cert;
	size_t attestation_cert_len;
	uint8_t *authdata;
	size_t authdata_len;
};

struct sk_sign_response {
	uint8_t flags;
	uint32_t counter;
	uint8_t *sig_r;
	size_t sig_r_len;
	uint8_t *sig_s;
	size_t sig_s_len;
};

struct sk_resident_key {
	uint32_t alg;
	size_t slot;
	char *application;
	struct sk_enroll_response key;
	uint8_t flags;
	uint8_t *user_id;
	size_t user_id_len;
};

struct sk_option {
	char *name;
	char *value;
	uint8_t required;
};
*/
import "C"

import (
	"errors"
	"unsafe"

	"mayfly/testenv/skprovider"
)

// apiVersion is the interface's: its major number is the upper half.
const apiVersion = 0x000a0000

func main() {}

//export sk_api_version
func sk_api_version() C.uint32_t { return apiVersion }

// device opens the key that the environment names. C's environment is asked: it is there whoever loads the library.
func device() (*skprovider.Device, error) {
	name := C.CString(skprovider.Variable)
	defer C.free(unsafe.Pointer(name))
	dir := C.getenv(name)
	if dir == nil {
		return nil, &skprovider.Error{Code: skprovider.DeviceNotFound, Text: skprovider.Variable + " is not set"}
	}
	d, err := skprovider.Open(C.GoString(dir))
	if err != nil {
		return nil, &skprovider.Error{Code: skprovider.DeviceNotFound, Text: err.Error()}
	}
	return d, nil
}

// code is what a function returns for an error. OpenSSH's programs get nothing but this number.
func code(err error) C.int {
	if refused := (*skprovider.Error)(nil); errors.As(err, &refused) {
		return C.int(refused.Code)
	}
	if err != nil {
		return C.int(skprovider.General)
	}
	return 0
}

// guard keeps a mistake of ours from ending somebody's program.
func guard(result *C.int) {
	if recover() != nil {
		*result = C.int(skprovider.General)
	}
}

// options reads the list, which ends with NULL. An option that must be understood and is not is an error.
func options(list **C.struct_sk_option) (user string, err error) {
	if list == nil {
		return "", nil
	}
	for p := list; *p != nil; p = (**C.struct_sk_option)(unsafe.Add(unsafe.Pointer(p), unsafe.Sizeof(*p))) {
		switch name := C.GoString((*p).name); {
		case name == "user":
			if user = C.GoString((*p).value); len(user) >= 32 {
				return "", &skprovider.Error{Code: skprovider.General, Text: "a user's name has at most 31 bytes"}
			}
		case name == "device":
			return "", &skprovider.Error{Code: skprovider.DeviceNotFound, Text: "this key is in software and has no device file"}
		case (*p).required != 0:
			return "", &skprovider.Error{Code: skprovider.General, Text: "unknown option " + name}
		}
	}
	return user, nil
}

func pinOf(pin *C.char) *string {
	if pin == nil {
		return nil
	}
	s := C.GoString(pin)
	return &s
}

// give copies data into memory that OpenSSH frees.
func give(data []byte) (*C.uint8_t, C.size_t) {
	if len(data) == 0 {
		return nil, 0
	}
	return (*C.uint8_t)(C.CBytes(data)), C.size_t(len(data))
}

func bytesOf(p *C.uint8_t, n C.size_t) []byte { return C.GoBytes(unsafe.Pointer(p), C.int(n)) }

//export sk_enroll
func sk_enroll(alg C.uint32_t, challenge *C.uint8_t, challengeLen C.size_t, application *C.char, flags C.uint8_t, pin *C.char,
	list **C.struct_sk_option, response **C.struct_sk_enroll_response) (result C.int) {
	defer guard(&result)
	user, err := options(list)
	if err != nil {
		return code(err)
	}
	d, err := device()
	if err != nil {
		return code(err)
	}
	made, err := d.Enroll(skprovider.EnrollRequest{Algorithm: skprovider.Algorithm(alg), Challenge: bytesOf(challenge, challengeLen),
		Application: C.GoString(application), User: user, Flags: byte(flags), PIN: pinOf(pin)})
	if err != nil {
		return code(err)
	}
	r := (*C.struct_sk_enroll_response)(C.calloc(1, C.sizeof_struct_sk_enroll_response))
	r.flags = C.uint8_t(made.Flags)
	r.public_key, r.public_key_len = give(made.Public)
	r.key_handle, r.key_handle_len = give(made.Handle)
	r.signature, r.signature_len = give(made.Signature)
	r.attestation_cert, r.attestation_cert_len = give(made.Certificate)
	r.authdata, r.authdata_len = give(made.AuthData)
	*response = r
	return 0
}

//export sk_sign
func sk_sign(alg C.uint32_t, data *C.uint8_t, dataLen C.size_t, application *C.char, handle *C.uint8_t, handleLen C.size_t,
	flags C.uint8_t, pin *C.char, list **C.struct_sk_option, response **C.struct_sk_sign_response) (result C.int) {
	defer guard(&result)
	if _, err := options(list); err != nil {
		return code(err)
	}
	d, err := device()
	if err != nil {
		return code(err)
	}
	signed, err := d.Sign(skprovider.SignRequest{Algorithm: skprovider.Algorithm(alg), Data: bytesOf(data, dataLen),
		Application: C.GoString(application), Handle: bytesOf(handle, handleLen), Flags: byte(flags), PIN: pinOf(pin)})
	if err != nil {
		return code(err)
	}
	r := (*C.struct_sk_sign_response)(C.calloc(1, C.sizeof_struct_sk_sign_response))
	r.flags, r.counter = C.uint8_t(signed.Flags), C.uint32_t(signed.Counter)
	r.sig_r, r.sig_r_len = give(signed.R)
	r.sig_s, r.sig_s_len = give(signed.S)
	*response = r
	return 0
}

//export sk_load_resident_keys
func sk_load_resident_keys(pin *C.char, list **C.struct_sk_option, keys ***C.struct_sk_resident_key, n *C.size_t) (result C.int) {
	defer guard(&result)
	if _, err := options(list); err != nil {
		return code(err)
	}
	d, err := device()
	if err != nil {
		return code(err)
	}
	residents, err := d.Residents(pinOf(pin))
	if err != nil {
		return code(err)
	}
	*keys, *n = nil, 0
	if len(residents) == 0 {
		return 0
	}
	array := (**C.struct_sk_resident_key)(C.calloc(C.size_t(len(residents)), C.size_t(unsafe.Sizeof(*keys))))
	for i, k := range residents {
		r := (*C.struct_sk_resident_key)(C.calloc(1, C.sizeof_struct_sk_resident_key))
		r.alg, r.slot, r.flags = C.uint32_t(k.Algorithm), C.size_t(i), C.uint8_t(k.Flags)
		r.application = C.CString(k.Application)
		r.key.public_key, r.key.public_key_len = give(k.Public)
		r.key.key_handle, r.key.key_handle_len = give(k.Handle)
		r.user_id, r.user_id_len = give(k.User)
		unsafe.Slice(array, len(residents))[i] = r
	}
	*keys, *n = array, C.size_t(len(residents))
	return 0
}
