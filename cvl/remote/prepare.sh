# What a run needs of the machine, checked before it starts.
prepare() { :; }
