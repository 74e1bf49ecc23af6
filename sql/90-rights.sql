/* Chapter 90: nothing is for everybody. Must stay the last chapter. */

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA sessauth FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA sessauth FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA sessauth FROM PUBLIC;
