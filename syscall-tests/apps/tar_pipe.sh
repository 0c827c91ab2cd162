tar -C /usr/share -cf - . | tar -tf - | sort | md5sum
cd /tmp; tar -C /usr/share -cf - doc | tar -xf -; diff -r --no-dereference /usr/share/doc doc; echo same
