package skprovider

import (
	"crypto/sha256"
	"errors"
)

// SignRequest is what sk_sign is asked.
type SignRequest struct {
	Algorithm   Algorithm
	Data        []byte
	Application string
	Handle      []byte
	Flags       byte
	PIN         *string // nil: none was given
}

// Signed is what sk_sign answers.
type Signed struct {
	Flags   byte
	Counter uint32
	R, S    []byte
}

// Sign signs with the key of a handle.
func (d *Device) Sign(r SignRequest) (Signed, error) {
	var out Signed
	touched := false
	err := func() error {
		var settings Settings
		var key *credential
		verified := false
		if err := d.update(func(st *state) (err error) {
			settings = st.Settings
			key, verified, err = st.unlock(r)
			return err
		}); err != nil {
			return err
		}
		if r.Flags&wantPresence != 0 && !settings.has(FlawNoTouchFlag) {
			if err := d.touch(settings, "sign", r.Application); err != nil {
				return err
			}
			touched = true
		}
		return d.update(func(st *state) (err error) {
			out.Flags, out.Counter = st.flags(touched, verified), st.count()
			digest := sha256.Sum256(r.Data)
			data := authData{application: r.Application, flags: out.Flags, counter: out.Counter}
			out.R, out.S, err = key.sign(append(data.bytes(), digest[:]...))
			return err
		})
	}()
	return out, d.done(Entry{Operation: "sign", Application: r.Application, PIN: r.PIN != nil, Touched: touched}, err)
}

// unlock finds the key and checks the PIN, if one is given or needed. A key with credProtect 3 is not there for who has no PIN; a
// program that knows that it needs one is told.
func (st *state) unlock(r SignRequest) (key *credential, verified bool, err error) {
	if key, err = unwrap(st.Secret, r.Handle, r.Algorithm, r.Application); err != nil {
		return nil, false, err
	}
	switch {
	case r.PIN != nil:
		return key, true, st.verify(*r.PIN)
	case r.Flags&wantVerification != 0:
		return nil, false, refuse(PINRequired, "this key signs only with the PIN")
	case key.protected:
		return nil, false, refuse(DeviceNotFound, "no key that signs without the PIN")
	}
	return key, false, nil
}

// done writes the journal and gives the error back.
func (d *Device) done(e Entry, err error) error {
	if err != nil {
		e.Code, e.Text = General, err.Error()
		if refused := (*Error)(nil); errors.As(err, &refused) {
			e.Code = refused.Code
		}
	}
	return errors.Join(err, d.note(e))
}
