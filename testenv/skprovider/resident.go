package skprovider

import (
	"slices"
	"strings"
)

// resident is a key that the device keeps, so that its handle can be asked for.
type resident struct {
	Algorithm   Algorithm `json:"algorithm"`
	Application string    `json:"application"`
	User        string    `json:"user"`
	Public      []byte    `json:"public"`
	Handle      []byte    `json:"handle"`
	Protected   bool      `json:"protected"`
}

func (st *state) find(application, user string) int {
	return slices.IndexFunc(st.Resident, func(k resident) bool { return k.Application == application && k.User == user })
}

// Resident is a resident key as sk_load_resident_keys answers.
type Resident struct {
	Algorithm   Algorithm
	Application string
	User        []byte // 32 bytes, with zeros behind the name
	Flags       byte
	Public      []byte
	Handle      []byte
}

// userBytes is the length of a user's id as OpenSSH makes it.
const userBytes = 32

// Residents lists the resident keys of SSH. It takes the PIN.
func (d *Device) Residents(pin *string) ([]Resident, error) {
	var out []Resident
	err := d.update(func(st *state) error {
		if pin == nil {
			return refuse(PINRequired, "resident keys are listed only with the PIN")
		}
		if err := st.verify(*pin); err != nil {
			return err
		}
		for _, k := range st.Resident {
			if !strings.HasPrefix(k.Application, "ssh:") {
				continue
			}
			r := Resident{Algorithm: k.Algorithm, Application: k.Application, User: make([]byte, userBytes), Flags: wantPresence | wantResident,
				Public: k.Public, Handle: k.Handle}
			copy(r.User, k.User)
			if k.Protected {
				r.Flags |= wantVerification
			}
			out = append(out, r)
		}
		return nil
	})
	return out, d.done(Entry{Operation: "resident", PIN: pin != nil}, err)
}
