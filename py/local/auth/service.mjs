// What @supabase/lite's auth leaves out or does otherwise than Supabase Auth, put right on the
// service object that it builds for each request. It relies on that object's methods, so the
// package is pinned to one version.
import { createHash, createHmac, randomInt, randomUUID } from "node:crypto";

const base64url = (text) => Buffer.from(text).toString("base64url");

function sign(claims, secret) {
  const signed = `${base64url('{"alg":"HS256","typ":"JWT"}')}.${base64url(JSON.stringify(claims))}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** Sends no mail itself: each goes to the send-email hook, with what Supabase Auth would give it. */
function hookedMailer({ sendEmail }, redirectTo) {
  const send = (email_action_type) => (to, token_hash, token) =>
    sendEmail({
      user: { email: to },
      email_data: { email_action_type, token, token_hash, redirect_to: redirectTo },
    });
  return {
    sendConfirmation: send("signup"),
    sendRecovery: send("recovery"),
    sendMagicLink: send("magiclink"),
    sendEmailChange: send("email_change"),
    sendReauthentication: (to, token, about) => send("reauthentication")(to, about.tokenHash, token),
  };
}

/** Returns the middleware that corrects each request's auth service. */
export function correctedService(settings) {
  let AuthError; // lite does not export it: (status, error_code, message)

  return async function correct(context, next) {
    const service = context.var.authService;
    const lite = Object.fromEntries(
      ["mapUserToResponse", "createSessionForUser", "createRefreshResponse", "signUp", "resend"].map(
        (name) => [name, service[name].bind(service)],
      ),
    );
    AuthError ??= await service.signInWithPassword().catch((error) => error.constructor);

    service.mailer = hookedMailer(settings, service.resolveEmailRedirect(context.req.query("redirect_to")));
    service.mapUserToResponse = (user, identities, kind) => ({
      ...lite.mapUserToResponse(user, identities, kind),
      is_anonymous: user.is_anonymous,
    });

    // lite's tokens lack most claims, and it lets banned users in.
    const withClaims = (make) => async (user, ...rest) => {
      if (user.banned_until && Date.parse(user.banned_until) > Date.now()) {
        throw new AuthError(400, "user_banned", "User is banned");
      }
      if (user.is_anonymous && user.email && user.confirmed_at) {
        user.is_anonymous = false;
        await service.repo.updateUser(user.id, { is_anonymous: false });
      }
      const session = await make(user, ...rest);
      const claims = JSON.parse(Buffer.from(session.access_token.split(".")[1], "base64url"));
      const method = user.is_anonymous ? "anonymous" : "password";
      session.access_token = sign(
        {
          ...claims,
          iss: settings.externalUrl,
          phone: user.phone ?? "",
          email: user.email ?? "",
          app_metadata: session.user.app_metadata,
          user_metadata: session.user.user_metadata,
          aal: "aal1",
          amr: [{ method, timestamp: Math.floor(Date.now() / 1000) }],
          is_anonymous: user.is_anonymous,
        },
        settings.jwtSecret,
      );
      return session;
    };
    service.createSessionForUser = withClaims(lite.createSessionForUser);
    service.createRefreshResponse = withClaims(lite.createRefreshResponse);

    if (/\/(otp|magiclink)$/.test(context.req.path)) {
      // lite would confirm and sign in a new user before the code is verified.
      const createUser = service.repo.createUser.bind(service.repo);
      service.repo.createUser = (user) =>
        createUser({
          ...user,
          confirmed_at: null,
          raw_user_meta_data: { ...user.raw_user_meta_data, email_verified: false },
        });
      service.createSessionForUser = async () => {};
    }

    service.signUp = async (email, password, data) => {
      if (!email && !password) {
        const user = await service.repo.createUser({
          id: randomUUID(),
          email: null,
          is_anonymous: true,
          raw_app_meta_data: {},
          raw_user_meta_data: data ?? {},
        });
        return { session: await service.createSessionForUser(user, [], "user") };
      }
      try {
        return await lite.signUp(email, password, data);
      } catch (error) {
        if (error.code === "23505") {
          // Two sign-ups at once.
          throw new AuthError(422, "user_already_exists", "User already registered");
        }
        if (error.code !== "over_email_send_rate_limit") throw error;
        return await knownAddress(email, data);
      }
    };

    // Supabase Auth does not tell whether an address is known: it mails again, or answers with a
    // user that does not exist.
    async function knownAddress(email, data) {
      const user = await service.repo.findUserByEmail(email);
      if (!user.email_confirmed_at) {
        await service.resend("signup", email);
        const identities = await service.repo.findIdentitiesByUserId(user.id);
        return { user: service.mapUserToResponse(user, identities, "signup") };
      }
      const at = new Date().toISOString();
      const nobody = {
        id: randomUUID(),
        email: user.email,
        is_anonymous: false,
        confirmation_sent_at: at,
        created_at: at,
        updated_at: at,
        raw_app_meta_data: { provider: "email", providers: ["email"] },
        raw_user_meta_data: data,
      };
      return { user: service.mapUserToResponse(nobody, [], "signup") };
    }

    // lite answers 429 to every resend; here one a minute goes out.
    service.resend = async (type, email) => {
      const user = type === "signup" && (await service.repo.findUserByEmail(email));
      const waiting = user && Date.now() - Date.parse(user.confirmation_sent_at) < 60_000;
      if (!user || user.email_confirmed_at || waiting) return lite.resend(type, email);
      const token = String(randomInt(10 ** service.otpLength)).padStart(service.otpLength, "0");
      const hash = createHash("sha256").update(user.email + token).digest("hex");
      await service.repo.updateUser(user.id, {
        confirmation_token: hash,
        confirmation_sent_at: new Date().toISOString(),
      });
      await service.mailer.sendConfirmation(user.email, hash, token);
    };

    await next();
  };
}
