package kinds

// Validate finds what is wrong with the meaning of an object that Decode accepts: what Istio's webhook refuses.
func Validate(o Object) Problems {
	return nil
}
